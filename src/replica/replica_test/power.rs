//! Power that fails at any step which a checkpoint takes on the disk: every write of its files, their
//! names, the switch of the superblock, and the removals of what the former one had alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::{FileWriter, Manifest, Map};

/// Steps until the power fails; each change of a disk takes one. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Power(Arc<AtomicU64>);

impl Power {
    pub(super) fn lasting() -> Self {
        Self::lasting_for(u64::MAX)
    }

    fn lasting_for(steps: u64) -> Self {
        Self(Arc::new(AtomicU64::new(steps)))
    }

    pub(super) fn is_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Takes a step, which comes to nothing if the power fails with it.
    pub(super) fn step(&self) -> std::io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(1);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 {
            return Err(std::io::Error::other("the power has failed"));
        }
        Ok(())
    }
}

/// A storage whose every change takes a step.
pub(super) struct Powered<'a> {
    pub(super) storage: &'a mut MemoryStorage,
    pub(super) power: Power,
}

struct PoweredWriter {
    writer: Box<dyn FileWriter>,
    power: Power,
}

impl Storage for Powered<'_> {
    fn create(&mut self, name: FileName) -> std::io::Result<Box<dyn FileWriter>> {
        self.power.step()?;
        Ok(Box::new(PoweredWriter {
            writer: self.storage.create(name)?,
            power: self.power.clone(),
        }))
    }

    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        self.storage.read(name, offset, bytes)
    }

    fn map(&self, name: FileName) -> std::io::Result<Map> {
        self.storage.map(name)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.power.step()?;
        self.storage.sync()
    }

    fn list(&self) -> std::io::Result<Vec<(FileName, u64)>> {
        self.storage.list()
    }

    fn room(&self) -> std::io::Result<u64> {
        self.storage.room()
    }

    fn remove(&mut self, name: FileName) -> std::io::Result<()> {
        self.power.step()?;
        self.storage.remove(name)
    }
}

impl FileWriter for PoweredWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.power.step()?;
        self.writer.write(bytes)
    }

    fn finish(self: Box<Self>) -> std::io::Result<()> {
        self.power.step()?;
        self.writer.finish()
    }
}

/// A replica, two clients, and how many batches the first has had acknowledged.
struct Life {
    world: World,
    session: Session,
    batches: u128,
    reader: Session,
}

impl Life {
    fn new() -> Self {
        let (mut world, session) = with_accounts();
        let mut reader = Session::new(5, 78);
        world.request(&mut reader, Operation::Register, &[]);
        Self {
            world,
            session,
            batches: 0,
            reader,
        }
    }

    /// Up to some batches before the third checkpoint.
    fn before_a_checkpoint() -> Self {
        let mut life = Self::new();
        while life.world.checkpoints < 3 {
            assert!(life.serve());
        }
        let last = life.batches - 2;
        let mut life = Self::new();
        while life.batches < last {
            assert!(life.serve());
        }
        assert_eq!(life.world.checkpoints, 2);
        life
    }

    /// The same life again, from its disk.
    fn again(&self) -> Self {
        let disk = Disk {
            superblock: self.world.superblock.clone(),
            image: self.world.device.image().clone(),
            storage: self.world.storage.copy(),
        };
        Self {
            world: World::start(disk, 20_000_000_000),
            session: self.session.clone(),
            batches: self.batches,
            reader: self.reader.clone(),
        }
    }

    /// Whether a batch was acknowledged.
    fn serve(&mut self) -> bool {
        let records = batch(1 + self.batches * 8189);
        let mut session = self.session.clone();
        let request = World::compose(&mut session, Operation::CreateTransfers, records.as_bytes());
        let Some(reply) = self.world.deliver(&request) else {
            return false;
        };
        assert_eq!(created(&World::receive(&mut session, &reply)), 8189);
        self.session = session;
        self.batches += 1;
        true
    }

    /// Batches until another checkpoint is in force, or the power fails.
    fn until_another(&mut self) {
        let former = self.in_force();
        while self.in_force() == former && self.serve() {}
    }

    /// A restart after the power has come back, with these of the names that were not synced.
    fn restart(mut self, keeps: fn(FileName) -> bool) -> Self {
        self.world.storage.crash_keeping(keeps);
        Self {
            world: World::start(self.world.crash(), 40_000_000_000),
            ..self
        }
    }

    /// What the accounts say.
    fn transfers(&mut self) -> u128 {
        let id = 1u128.to_le_bytes();
        let operation = Operation::LookupAccounts;
        let reply = self.world.request(&mut self.reader, operation, &id);
        let account = Account::read_from_bytes(&reply[..128]).unwrap();
        account.debits_posted / 3
    }

    fn in_force(&self) -> ManifestRef {
        let state = State::decode_file(&self.world.superblock).unwrap();
        state.manifest().expect("there were checkpoints")
    }

    /// Whatever a failure has left, two checkpoints later the disk has nothing but the last one and the one
    /// before it, whose files the next sweep takes.
    fn nothing_is_left_lying(&mut self) {
        self.until_another();
        let former = self.in_force();
        self.until_another();
        let storage = &self.world.storage;
        let mut listed = Vec::new();
        for reference in [former, self.in_force()] {
            let manifest = Manifest::open(storage, &reference).unwrap();
            manifest.verify(storage).unwrap();
            listed.push(reference.entry().name);
            listed.extend(manifest.files.iter().map(|file| file.name));
        }
        let files = storage.list().unwrap();
        let mut others = files.iter().filter(|(name, _)| !listed.contains(name));
        assert_eq!(others.next(), None);
    }
}

#[test]
fn power_that_fails_at_any_step_of_a_checkpoint_costs_nothing_that_was_acknowledged() {
    // Of the names and removals that were not synced, a disk has kept none, all, or some.
    let some = |name: FileName| (name.number + name.kind as u64).is_multiple_of(2);
    let kept: [fn(FileName) -> bool; 3] = [|_| false, |_| true, some];
    let before = Life::before_a_checkpoint();
    for keeps in kept {
        let mut in_force = std::collections::BTreeMap::new();
        for steps in 1.. {
            let mut life = before.again();
            assert_eq!(life.world.checkpoints, 0, "not by the restart");
            life.world.power = Power::lasting_for(steps);
            // This checkpoint, and the sweep and all writes of the next one.
            life.until_another();
            life.until_another();
            let dark = life.world.power.is_out();
            *in_force.entry(life.in_force().op).or_insert(0) += 1;
            let mut life = life.restart(keeps);
            let acknowledged = life.batches * 8189;
            // The batch under way may have taken effect; then it is answered from the table.
            let there = life.transfers();
            assert!(
                there == acknowledged || there == acknowledged + 8189,
                "step {steps}: {there} for {acknowledged}"
            );
            assert!(life.serve(), "step {steps}");
            assert_eq!(life.transfers(), acknowledged + 8189, "step {steps}");
            life.nothing_is_left_lying();
            if !dark {
                break;
            }
        }
        // The former one was in force for many steps, the new one for as many, and at last the one after it.
        let counts: Vec<u64> = in_force.values().copied().collect();
        assert!(
            matches!(counts[..], [former, new, _] if former > 20 && new > 20),
            "{in_force:?}"
        );
    }
}

//! The drills themselves, each a short story in the verbs of the scene.

use crate::scene::Scene;
use crate::trouble::Trouble;

/// Nothing is done: what the cluster does by itself, for comparison.
pub(crate) fn normal(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| scene.gap(|scene| scene.steady()))
}

/// kill -9 of the primary: another one takes over, the dead one comes back as a backup.
pub(crate) fn primary_crash(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let primary = scene.primary();
        scene.gap(|scene| {
            scene.kill(&[primary]);
            scene.service_resumes()?;
            scene.steady()
        })?;
        scene.recovery(|scene| {
            scene.restart(&[primary])?;
            scene.serving(primary)
        })
    })
}

/// kill -9 of a backup: nobody may notice.
pub(crate) fn backup_crash(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let backup = scene.any_backup();
        scene.gap(|scene| {
            scene.kill(&[backup]);
            scene.steady()
        })?;
        scene.recovery(|scene| {
            scene.restart(&[backup])?;
            scene.serving(backup)
        })
    })
}

/// SIGSTOP of the primary: another one takes over; resumed, the old one must not answer as primary.
///
/// The captive client speaks to the old primary only. Its reads are sent while that one sleeps and lie
/// in its socket when it wakes, still thinking that it leads; by then the others have acknowledged
/// transfers that it has never seen.
pub(crate) fn primary_pause(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let primary = scene.primary();
        let captive = scene.captive(primary)?;
        scene.gap(|scene| {
            scene.pause(primary);
            scene.service_resumes()?;
            scene.steady()
        })?;
        captive.read();
        scene.steady()?;
        scene.resume(primary);
        scene.steady()?;
        scene.release(captive)
    })
}

/// kill -9 of the primary, then of the next one, until there is no majority: service stops. With a
/// majority it resumes.
pub(crate) fn cascade(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let mut dead = Vec::new();
        while scene.running() > scene.majority() {
            let primary = scene.primary();
            scene.gap(|scene| {
                scene.kill(&[primary]);
                scene.service_resumes()?;
                scene.steady()
            })?;
            dead.push(primary);
        }
        let last = scene.primary();
        scene.kill(&[last]);
        scene.no_service()?;
        scene.recovery(|scene| {
            scene.restart(&[last])?;
            scene.service_resumes()
        })?;
        scene.steady()?;
        scene.restart(&dead)?;
        dead.iter().try_for_each(|index| scene.serving(*index))
    })
}

/// A backup is away while the others work, and comes back: it catches up while they go on. That it has
/// is proved by needing it: another one is killed, and the majority is one with it or none.
pub(crate) fn rejoin(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let backups = scene.backups();
        let (away, others) = backups.split_first().expect("three replicas at least");
        scene.kill(&[*away]);
        scene.steady()?;
        scene.gap(|scene| {
            scene.recovery(|scene| {
                scene.restart(&[*away])?;
                scene.serving(*away)
            })?;
            scene.steady()
        })?;
        scene.kill(others);
        scene.service_resumes()?;
        scene.steady()?;
        scene.restart(others)?;
        others.iter().try_for_each(|index| scene.serving(*index))
    })
}

/// kill -9 of all replicas at once, again and again: what was acknowledged is on their disks.
pub(crate) fn power_loss(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let all = scene.all();
        scene.recovery(|scene| {
            scene.kill(&all);
            scene.restart(&all)?;
            scene.service_resumes()
        })
    })
}

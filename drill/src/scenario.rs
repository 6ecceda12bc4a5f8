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
            scene.caught_up(primary)
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
            scene.caught_up(backup)
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
        dead.iter().try_for_each(|index| scene.caught_up(*index))
    })
}

/// More clients than sessions: whoever spoke least recently is evicted, is told so, and goes on in a new
/// session. The next primary evicts the same ones, and answers the same ones. One is pushed out while its
/// request is under way, and finds out what has become of it.
pub(crate) fn sessions(scene: &mut Scene) -> Result<(), Trouble> {
    /// One of so many parts.
    const HALF: usize = 2;
    const ALL: usize = 1;
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        scene.guests_arrive()?;
        // Half of each, so that words count and not arrivals, and the next primary has some left to evict.
        scene.seated_guests_are_answered(HALF)?;
        let before = scene.evicted_guests_are_told(HALF)?;
        let under_way = scene.oldest_guest_is_pushed_out_under_way()?;
        // At once: what was executed last must be known to the next one.
        let primary = scene.primary();
        scene.gap(|scene| {
            scene.kill(&[primary]);
            scene.service_resumes()
        })?;
        scene.seated_guests_are_answered(ALL)?;
        let after = scene.evicted_guests_are_told(ALL)?;
        scene.evictions(under_way, before, after);
        scene.restart(&[primary])?;
        scene.caught_up(primary)
    })
}

/// A backup is away while the others work, and comes back: it catches up while they go on, and counts.
pub(crate) fn rejoin(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let away = scene.any_backup();
        scene.kill(&[away]);
        scene.steady()?;
        scene.gap(|scene| {
            scene.recovery(|scene| {
                scene.restart(&[away])?;
                scene.caught_up(away)
            })?;
            scene.steady()
        })?;
        scene.counts(away)
    })
}

/// A backup is away until the journals of the others no longer reach back to where it stands: it
/// fetches a checkpoint and the log behind it, while they go on.
pub(crate) fn lagging_backup(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let away = scene.any_backup();
        scene.kill(&[away]);
        scene.outgrow_journals(1.25)?;
        scene.throughput_ratio(
            |scene| {
                scene.gap(|scene| {
                    scene.recovery(|scene| {
                        scene.restart(&[away])?;
                        scene.caught_up(away)
                    })
                })
            },
            0.5,
        )?;
        scene.counts(away)
    })
}

/// The disk of a backup is lost: `stampede recover` makes a new one, which has no vote until the others
/// have brought it up to date.
pub(crate) fn lost_disk(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let lost = scene.any_backup();
        scene.kill(&[lost]);
        scene.lose_disk(lost)?;
        scene.steady()?;
        scene.gap(|scene| {
            scene.recovery(|scene| {
                scene.recover(lost)?;
                scene.restart(&[lost])?;
                scene.says(lost, "recovering:")?;
                scene.caught_up(lost)
            })
        })?;
        scene.counts(lost)
    })
}

/// Bits flip in the journal of one replica; then in different entries on each.
pub(crate) fn corrupt_journal(scene: &mut Scene) -> Result<(), Trouble> {
    const ENTRIES: usize = 10;
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let one = scene.any_backup();
        scene.kill(&[one]);
        scene.corrupt(&[one], ENTRIES)?;
        scene.gap(|scene| {
            scene.restart(&[one])?;
            scene.says(one, "the disk has damaged")?;
            scene.says(one, "all damaged entries of the journal are restored")?;
            scene.caught_up(one)
        })?;
        scene.counts(one)?;

        scene.steady()?;
        let all = scene.all();
        scene.kill(&all);
        scene.corrupt(&all, ENTRIES)?;
        scene.recovery(|scene| {
            scene.restart(&all)?;
            scene.service_resumes()
        })?;
        all.iter().try_for_each(|index| {
            scene.says(*index, "the disk has damaged")?;
            scene.says(*index, "all damaged entries of the journal are restored")
        })?;
        scene.steady()
    })
}

/// Bits flip in files of full chunks while they are in use: of one replica, then of all, in another file on
/// each.
pub(crate) fn damaged_segment(scene: &mut Scene) -> Result<(), Trouble> {
    const FOUND: &str = "is damaged: fetching it from another replica";
    const MENDED: &str = "the checkpoint that was fetched or mended is in place";
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        // As many full chunks in a checkpoint as there are replicas, and more.
        scene.outgrow_journals(3.0)?;
        let one = scene.any_backup();
        scene.gap(|scene| {
            scene.recovery(|scene| {
                let since = scene.damage_segments(&[one])?;
                scene.says_since(one, FOUND, since)?;
                scene.says_since(one, MENDED, since)?;
                scene.caught_up(one)
            })
        })?;
        scene.counts(one)?;
        scene.steady()?;
        let all = scene.all();
        let since = scene.damage_segments(&all)?;
        all.iter().try_for_each(|index| {
            scene.says_since(*index, FOUND, since)?;
            scene.says_since(*index, MENDED, since)
        })?;
        scene.steady()
    })
}

/// The directory of a backup is set back to an older copy: it has forgotten what it promised since. The
/// others notice, and it neither votes until it has caught up nor refuses for ever.
pub(crate) fn rollback(scene: &mut Scene) -> Result<(), Trouble> {
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let old = scene.any_backup();
        scene.stop(old)?;
        scene.copy_directory(old)?;
        scene.restart(&[old])?;
        scene.caught_up(old)?;
        scene.steady()?;
        scene.stop(old)?;
        scene.put_back(old)?;
        scene.gap(|scene| {
            scene.recovery(|scene| {
                scene.restart(&[old])?;
                scene.says(old, "recovering:")?;
                scene.caught_up(old)
            })
        })?;
        scene.counts(old)
    })
}

/// Links are cut: the primary off from everybody but its clients; the primary deaf; a backup deaf; all
/// from each other.
pub(crate) fn partition(scene: &mut Scene) -> Result<(), Trouble> {
    scene.lay_links()?;
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let primary = scene.primary();
        let captive = scene.captive(primary)?;
        scene.gap(|scene| {
            scene.isolate(primary)?;
            scene.service_resumes()?;
            scene.steady()
        })?;
        // It cannot know, and must not answer.
        captive.read();
        scene.steady()?;
        scene.heal()?;
        scene.release(captive)?;
        scene.steady()?;
        scene.caught_up(primary)?;

        let primary = scene.primary();
        scene.gap(|scene| {
            scene.deafen(primary)?;
            scene.service_resumes()?;
            scene.steady()
        })?;
        scene.heal()?;
        scene.steady()?;
        scene.caught_up(primary)?;

        let backup = scene.any_backup();
        scene.same_view(|scene| {
            scene.gap(|scene| {
                scene.deafen(backup)?;
                scene.steady()
            })?;
            scene.heal()?;
            scene.steady()
        })?;
        scene.counts(backup)?;

        scene.steady()?;
        scene.scatter()?;
        scene.no_service()?;
        scene.recovery(|scene| {
            scene.heal()?;
            scene.service_resumes()
        })?;
        scene.steady()
    })
}

/// The disk of a backup becomes a hundred times slower: nobody waits for it.
pub(crate) fn slow_disk(scene: &mut Scene) -> Result<(), Trouble> {
    const WRITES_PER_S: u32 = 40;
    scene.start()?;
    scene.repeat(|scene| {
        let backup = scene.any_backup();
        scene.latency_ratio(
            |scene| {
                scene.gap(|scene| {
                    scene.slow_disk(backup, WRITES_PER_S)?;
                    scene.steady()?;
                    scene.steady()
                })
            },
            1.5,
        )?;
        scene.fast_disk();
        // It may have been too busy with its disk to say that it fell behind: time to find out.
        scene.steady()?;
        scene.caught_up(backup)?;
        scene.counts(backup)
    })
}

/// The disk of one replica is full: the others go on. The disks of all are full: writes are refused and
/// reads are served, until there is room again.
pub(crate) fn disk_full(scene: &mut Scene) -> Result<(), Trouble> {
    const DISK_MEBIBYTES: u64 = 160;
    scene.small_disks(DISK_MEBIBYTES)?;
    scene.start()?;
    scene.repeat(|scene| {
        scene.steady()?;
        let one = scene.any_backup();
        scene.gap(|scene| {
            scene.fill_disk(one)?;
            scene.says(one, "the disk is full")?;
            scene.steady()
        })?;
        scene.free_disk(one)?;
        scene.says(one, "there is room in")?;
        scene.caught_up(one)?;
        scene.counts(one)?;

        let all = scene.all();
        all.iter().try_for_each(|index| scene.fill_disk(*index))?;
        scene.service_stops()?;
        scene.reads_are_served()?;
        scene.recovery(|scene| {
            all.iter().try_for_each(|index| scene.free_disk(*index))?;
            scene.service_resumes()
        })?;
        scene.steady()
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

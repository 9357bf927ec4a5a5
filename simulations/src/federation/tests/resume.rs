//! Runs that are cut off anywhere, and go on to the same end.

use super::engine::Named;
use super::*;
use std::path::Path;
use tempfile::TempDir;

fn kept_in(folder: &Path, events: Events, every: u32) -> Keep {
    Keep::Folder { path: folder.to_owned(), events, every }
}

fn setup(keep: Keep) -> Setup {
    let mut setup = plain::in_the_clear("local");
    setup.plan.rounds = 5;
    (setup.clients, setup.attendance) = (40, Attendance::CheckIn { clients: 13 });
    setup.keep = keep;
    setup
}

fn in_groups(keep: Keep) -> Setup {
    let mut setup = groups_of_nine(2);
    setup.plan.rounds = 3;
    (setup.clients, setup.attendance) = (30, Attendance::CheckIn { clients: 18 });
    setup.keep = keep;
    setup
}

/// Clients that train over several rounds.
fn buffered(keep: Keep) -> Setup {
    let mut setup = setup(keep);
    setup.plan.cohort.minimum = 12;
    setup.plan.rounds = 9;
    setup.attendance = Attendance::Buffered { concurrency: 30, max_staleness: 2 };
    setup
}

/// What a run has come to: events, model, what is left of its devices.
type End = (Option<Digest>, Option<Digest>, BTreeMap<u32, Kept>, BTreeMap<u32, Bytes>);

fn outcome(federation: &Federation<Named>) -> End {
    assert!(federation.failure().is_none(), "{:?}", federation.failure());
    assert!(federation.coordinator().closed().is_some());
    let model = federation.coordinator().model();
    (federation.store().digest(), model, federation.kept.clone(), federation.memories.clone())
}

/// Crashes of the coordinator, beside what `Named` does.
fn scenario() -> Named {
    Named::new(11)
}

#[test]
fn a_run_that_is_cut_off_anywhere_comes_to_the_same_end() {
    for (make, events, every) in [
        (setup as fn(Keep) -> Setup, Events::All, 1),
        (setup, Events::Lasting, 2),
        (in_groups, Events::Lasting, 1),
        (buffered, Events::Lasting, 2),
    ] {
        let whole = TempDir::new().unwrap();
        let mut federation = Federation::new(make(kept_in(whole.path(), events, every)), scenario()).unwrap();
        let mut steps = 0_usize;
        while federation.step() {
            steps += 1;
        }
        let expected = outcome(&federation);
        assert!(published(&federation.events()).len() > 2);
        for cut in (0..=steps).step_by(steps / 12) {
            let folder = TempDir::new().unwrap();
            let keep = || kept_in(folder.path(), events, every);
            let mut cut_off = Federation::new(make(keep()), scenario()).unwrap();
            for _ in 0..cut {
                cut_off.step();
            }
            drop(cut_off);
            // What a kill leaves behind the checkpoint.
            for name in ["events.jsonl", "devices.bin"] {
                let path = folder.path().join(name);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.extend(b"torn");
                std::fs::write(path, bytes).unwrap();
            }
            let mut resumed = Federation::resume(make(keep()), scenario()).unwrap();
            resumed.run();
            assert!(outcome(&resumed) == expected, "cut off after {cut} of {steps} steps");
            // A run that is over stays as it is.
            drop(resumed);
            let mut again = Federation::resume(make(keep()), scenario()).unwrap();
            // But its last round is told again: nobody may have noted it.
            let last = again.run_round().map(|round| round.round);
            assert_eq!(last, Some(again.coordinator().last_round()));
            assert!(again.run_round().is_none());
            assert!(outcome(&again) == expected);
        }
    }
}

#[test]
fn a_folder_gives_the_history_that_memory_gives() {
    let folder = TempDir::new().unwrap();
    let mut on_disk = Federation::new(setup(kept_in(folder.path(), Events::All, 1)), scenario()).unwrap();
    let mut in_memory = Federation::new(setup(Keep::Everything), scenario()).unwrap();
    on_disk.run();
    in_memory.run();
    assert_eq!(on_disk.events(), in_memory.events());
    assert_eq!(on_disk.store().digest(), in_memory.store().digest());
    assert_eq!(on_disk.model(), in_memory.model());
    assert!(on_disk.store().blobs().len() <= 3);
    let files = |name: &str| std::fs::read_dir(folder.path().join(name)).unwrap().count();
    assert!(files("blobs") <= 3, "{} blobs", files("blobs"));
    assert_eq!(files("memory"), on_disk.memories.len(), "one memory for each client that has one");
}

#[test]
fn lasting_events_rebuild_the_coordinator_between_rounds() {
    let folder = TempDir::new().unwrap();
    let mut federation =
        Federation::new(in_groups(kept_in(folder.path(), Events::Lasting, 1)), scenario()).unwrap();
    let mut rounds = 0;
    while federation.run_round().is_some() {
        let replayed = {
            let mut core = Coordinator::new(federation.settings.clone()).unwrap();
            federation.events().iter().for_each(|event| core.apply(event));
            core
        };
        let told = |core: &Coordinator| {
            (
                core.last_round(),
                core.model(),
                core.log().head(),
                core.epsilon_spent(),
                core.closed().map(str::to_owned),
            )
        };
        assert_eq!(told(&replayed), told(federation.coordinator()));
        rounds += 1;
    }
    assert_eq!(rounds, 3);
}

#[test]
fn a_folder_of_another_run_or_a_damaged_one_is_refused() {
    let folder = TempDir::new().unwrap();
    let keep = || kept_in(folder.path(), Events::All, 1);
    let mut federation = Federation::new(setup(keep()), scenario()).unwrap();
    assert!(federation.run_until(|federation| federation.coordinator().last_round() == 3));
    drop(federation);
    let refused = |made: Result<Federation<Named>, SetupError>| made.err().unwrap().to_string();

    assert!(refused(Federation::new(setup(keep()), scenario())).contains("holds a run already"));
    let other = Setup { seed: 2, ..setup(keep()) };
    assert!(
        refused(Federation::resume(other, scenario())).contains("another plan, policy, seed or population")
    );
    let connected = Setup { attendance: Attendance::Connected, ..setup(keep()) };
    assert!(refused(Federation::new(connected, scenario())).contains("clients check in for each round"));

    let blob = std::fs::read_dir(folder.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    for path in ["events.jsonl", "devices.bin"].map(|name| folder.path().join(name)).into_iter().chain([blob])
    {
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = refused(Federation::resume(setup(keep()), scenario()));
        assert!(
            error.contains("not what the checkpoint says") || error.contains("another digest"),
            "{error}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::write(folder.path().join("checkpoint.json"), "{}").unwrap();
    assert!(
        refused(Federation::resume(setup(keep()), scenario())).contains("checkpoint.json: missing field")
    );
}

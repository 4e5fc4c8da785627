//! The power is cut at every single operation of a workload, and again during recovery.

use kvraft_base::Prng;
use kvraft_store::open;

use crate::{
    disk::{Loss, TestDisk},
    world::{Model, OPTIONS, check_and_use, formatted, identity, run, snapshot},
};

fn losses(at: u64) -> [Loss; 5] {
    [Loss::All, Loss::Nothing, Loss::Torn(3 * at), Loss::Torn(3 * at + 1), Loss::Torn(3 * at + 2)]
}

/// Whatever operation fails, and however much of what was not synced is lost: everything synced is
/// there, nothing that was never written is, and the directory goes on working.
#[test]
fn every_operation_may_be_the_last() {
    let chunks = snapshot();
    let formatted = formatted().crash(Loss::All);
    let mut at = 0;
    loop {
        let disk = formatted.fork();
        disk.set_fuse(Some(at));
        let mut model = Model::new();
        let result = run(&disk, &chunks, &mut model);
        assert!(result.is_ok() || disk.is_dead(), "fails only with the disk: {result:?}");
        for loss in losses(at) {
            let context = format!("operation {at}, {loss:?}");
            let mut model = model.clone();
            let next = check_and_use(&disk.crash(loss), &mut model, &context);
            check_and_use(&next, &mut model, &format!("{context}, used once more"));
        }
        if !disk.is_dead() {
            break;
        }
        at += 1;
    }
    assert!(300 < at, "the workload has shrunk to {at} operations");
}

/// The process dies and is started again on the same kernel, then the power is cut: what recovery
/// believed the first time is still there.
#[test]
fn what_recovery_believed_stays() {
    let chunks = snapshot();
    let formatted = formatted().crash(Loss::All);
    for at in 0..450 {
        let disk = formatted.fork();
        disk.set_fuse(Some(at));
        let mut model = Model::new();
        let _failed = run(&disk, &chunks, &mut model).is_err();
        let alive = revive(&disk);
        let context = format!("operation {at}");
        let opened = open(&alive, &OPTIONS, None).unwrap();
        model.check(&opened, &context);
        for loss in losses(at) {
            let again = open(&alive.crash(loss), &OPTIONS, None).unwrap();
            model.clone().check(&again, &format!("{context}, {loss:?}"));
        }
        drop(opened);
        let next = check_and_use(&alive, &mut model, &context);
        check_and_use(&next, &mut model, &format!("{context}, used once more"));
    }
}

/// Recovery itself is cut short anywhere and done again.
#[test]
fn recovery_may_be_cut_short() {
    let chunks = snapshot();
    let formatted = formatted().crash(Loss::All);
    let mut prng = Prng::new(11);
    for at in (0..450).step_by(5) {
        let disk = formatted.fork();
        disk.set_fuse(Some(at));
        let mut model = Model::new();
        let _failed = run(&disk, &chunks, &mut model).is_err();
        let crashed = disk.crash(Loss::Torn(at));
        let mut cut = 0;
        loop {
            let disk = crashed.fork();
            disk.set_fuse(Some(cut));
            let done = open(&disk, &OPTIONS, None).is_ok();
            let context = format!("operation {at}, recovery cut at {cut}");
            let loss = Loss::Torn(prng.next_u64());
            check_and_use(&disk.crash(loss), &mut model.clone(), &context);
            if done && !disk.is_dead() {
                break;
            }
            cut += 1 + prng.below(6);
        }
    }
}

/// A format that is cut short is not taken for a member's directory, and can be done again.
#[test]
fn format_may_be_cut_short() {
    let mut at = 0;
    loop {
        let disk = TestDisk::new();
        disk.set_fuse(Some(at));
        let done = kvraft_store::format(&disk, &identity()).is_ok();
        for loss in losses(at) {
            let disk = disk.crash(loss);
            if !kvraft_store::is_formatted(&disk).unwrap() {
                assert!(!done, "operation {at}: a finished format was lost");
                kvraft_store::format(&disk, &identity()).unwrap();
            }
            check_and_use(&disk, &mut Model::new(), &format!("format cut at {at}, {loss:?}"));
        }
        if done {
            break;
        }
        at += 1;
    }
}

/// The same disk for a new process: nothing is lost, and it works again.
fn revive(disk: &TestDisk) -> TestDisk {
    let alive = disk.fork();
    alive.revive();
    alive
}

//! The pool of slots against a model that keeps plain sets.

use ockam_engine::io::pool::{Geometry, Pool, Segment, Slot};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SMALL: Geometry = Geometry { head: 512, body: 3584, tail: 0, count: 6 };
const LARGE: Geometry = Geometry { head: 0, body: 64 * 1024, tail: 0, count: 2 };

fn pool() -> Pool {
    Pool::new(3, SMALL, LARGE).unwrap()
}

#[test]
fn slots_do_not_overlap_and_are_all_there() {
    let mut pool = pool();
    let mut slots: Vec<Slot> = std::iter::from_fn(|| pool.take()).collect();
    slots.extend(std::iter::from_fn(|| pool.take_large()));
    assert_eq!(slots.len(), SMALL.count + LARGE.count);
    assert_eq!((pool.census(), pool.large_used()), ((0, 0, SMALL.count), LARGE.count));
    for (mark, slot) in slots.iter_mut().enumerate() {
        assert_eq!(slot.id().core, 3);
        let size = slot.size();
        slot.bytes_mut(0..size).fill(mark as u8 + 1);
    }
    for (mark, slot) in slots.iter().enumerate() {
        assert!(slot.bytes(0..slot.size()).iter().all(|&byte| byte == mark as u8 + 1), "slot {mark} was written over");
    }
    let names: BTreeSet<_> = slots.iter().map(|slot| (slot.id().large, slot.id().index)).collect();
    assert_eq!(names.len(), slots.len());
    for slot in slots {
        pool.put(slot);
    }
    assert_eq!((pool.census(), pool.large_used()), ((SMALL.count, 0, 0), 0));
}

#[test]
fn what_was_used_last_is_used_first() {
    let mut pool = pool();
    let first = pool.take().unwrap();
    let second = pool.take().unwrap();
    let hot = first.id();
    pool.put(second);
    pool.put(first);
    assert_eq!(pool.take().unwrap().id(), hot);
}

#[test]
fn idle_memory_reads_as_zeros_again() {
    let mut pool = pool();
    let slots: Vec<Slot> = std::iter::from_fn(|| pool.take())
        .map(|mut slot| {
            slot.bytes_mut(0..4096).fill(9);
            slot
        })
        .collect();
    let mut large = pool.take_large().unwrap();
    large.bytes_mut(0..10).fill(9);
    let kept = large.id();
    for slot in slots {
        pool.put(slot);
    }
    pool.give_back_idle();
    assert_eq!(large.bytes(0..10), [9; 10], "it was not idle");
    pool.put(large);
    pool.give_back_idle();
    let large = pool.take_large().unwrap();
    assert_eq!((large.id(), large.bytes(0..10)), (kept, &[0; 10][..]));
    let cold = std::iter::from_fn(|| pool.take()).filter(|slot| slot.bytes(0..4096).iter().all(|&b| b == 0)).count();
    assert_eq!(cold, SMALL.count, "free slots hold no memory");
}

#[test]
fn memory_that_was_used_lately_stays() {
    let mut pool = pool();
    let mut slots: Vec<Slot> = (0..3).map(|_| pool.take().unwrap()).collect();
    slots.iter_mut().for_each(|slot| slot.bytes_mut(0..8).fill(9));
    slots.into_iter().for_each(|slot| pool.put(slot));
    pool.give_back_unused();
    // Of the three that were used, one goes on being used.
    let hot = pool.take().unwrap();
    assert_eq!(hot.bytes(0..8), [9; 8]);
    pool.put(hot);
    pool.give_back_unused();
    let slots: Vec<Slot> = (0..3).map(|_| pool.take().unwrap()).collect();
    let kept: Vec<bool> = slots.iter().map(|slot| slot.bytes(0..8) == [9; 8]).collect();
    assert_eq!(kept, [true, false, false]);
    slots.into_iter().for_each(|slot| pool.put(slot));
}

#[test]
#[should_panic(expected = "range is shared")]
fn a_shared_range_cannot_be_written() {
    let mut pool = pool();
    let mut slot = pool.take().unwrap();
    let _segment = pool.share(&mut slot, 100..200);
    slot.bytes_mut(199..300)[0] = 1;
}

#[test]
#[should_panic(expected = "range is shared")]
fn what_lies_before_a_shared_range_cannot_be_written_either() {
    let mut pool = pool();
    let mut slot = pool.take().unwrap();
    let _segment = pool.share(&mut slot, 100..200);
    slot.bytes_mut(0..1)[0] = 1;
}

#[test]
#[should_panic(expected = "outside the slot")]
fn a_slot_has_an_end() {
    let slot = pool().take().unwrap();
    let _ = slot.bytes(4000..4097);
}

#[test]
#[should_panic(expected = "its own pool")]
fn a_slot_goes_back_to_its_own_pool() {
    let slot = pool().take().unwrap();
    Pool::new(4, SMALL, LARGE).unwrap().put(slot);
}

#[test]
#[should_panic(expected = "the pool lent")]
fn a_lost_slot_is_noticed() {
    let mut pool = pool();
    let slot = pool.lend();
    assert!(slot.is_some());
    pool.assert_conserved(0);
}

#[test]
#[should_panic(expected = "more sent")]
fn no_more_is_sent_than_there_was() {
    let mut pool = pool();
    let mut slot = pool.take().unwrap();
    pool.share(&mut slot, 0..10).advance(11);
}

#[test]
fn segments_that_touch_become_one() {
    let mut pool = pool();
    let mut slot = pool.take().unwrap();
    slot.bytes_mut(0..30).copy_from_slice(&std::array::from_fn::<u8, 30, _>(|place| place as u8));
    let mut front = pool.share(&mut slot, 0..10);
    let mut next = pool.share(&mut slot, 10..20);
    assert!(front.take_in(&mut next));
    assert!(next.is_empty());
    assert_eq!(front.bytes(), (0..20).collect::<Vec<u8>>());
    // One that does not touch, and one of another slot, stay as they are.
    let mut apart = pool.share(&mut slot, 21..30);
    let mut other = pool.take().unwrap();
    let mut elsewhere = pool.share(&mut other, 20..30);
    assert!(!front.take_in(&mut apart) && !front.take_in(&mut elsewhere));
    assert_eq!((front.len(), apart.len(), elsewhere.len()), (20, 9, 10));
    // The end of what is left still counts after a part was sent.
    front.advance(15);
    let mut last = pool.share(&mut slot, 20..21);
    assert!(front.take_in(&mut last));
    assert_eq!(front.bytes(), (15..21).collect::<Vec<u8>>());
    for segment in [front, next, apart, elsewhere, last] {
        pool.release(segment);
    }
    pool.put(slot);
    pool.put(other);
    assert_eq!(pool.census(), (SMALL.count, 0, 0));
}

#[test]
fn a_slot_thaws_when_its_last_segment_is_gone() {
    let mut pool = pool();
    let mut slot = pool.take().unwrap();
    assert!(pool.thaw(&mut slot));
    let first = pool.share(&mut slot, 0..10);
    let second = pool.share(&mut slot, 50..60);
    pool.release(second);
    assert!(!pool.thaw(&mut slot));
    slot.bytes_mut(60..70).fill(1);
    pool.release(first);
    assert!(pool.thaw(&mut slot));
    slot.bytes_mut(0..10).fill(1);
    pool.put(slot);
}

/// What a core does with slots; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Take,
    Write(usize, u16, u8),
    Share(usize, u16, u16),
    Put(usize),
    Release(usize),
    Advance(usize, u16),
    Merge(usize, usize),
    Thaw(usize),
    Lend,
    Return(usize),
    GiveBack,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..64usize;
    prop_oneof![
        3 => Just(Step::Take),
        4 => (n.clone(), 0..4096u16, any::<u8>()).prop_map(|(slot, at, byte)| Step::Write(slot, at, byte)),
        5 => (n.clone(), 0..600u16, 1..600u16).prop_map(|(slot, gap, length)| Step::Share(slot, gap, length)),
        2 => n.clone().prop_map(Step::Put),
        3 => n.clone().prop_map(Step::Release),
        2 => (n.clone(), 0..600u16).prop_map(|(segment, count)| Step::Advance(segment, count)),
        2 => (n.clone(), n.clone()).prop_map(|(front, next)| Step::Merge(front, next)),
        2 => n.clone().prop_map(Step::Thaw),
        2 => Just(Step::Lend),
        2 => n.prop_map(Step::Return),
        1 => Just(Step::GiveBack),
    ]
}

/// The stupid twin: which slots are free, and what every segment must say.
#[derive(Default)]
struct Model {
    free: BTreeSet<u16>,
    lent: BTreeSet<u16>,
    /// Slots with a handle.
    held: BTreeSet<u16>,
    /// Per slot: how many segments.
    segments: BTreeMap<u16, usize>,
}

impl Model {
    fn unless_used(&mut self, index: u16) {
        if !self.held.contains(&index) && self.segments.get(&index).is_none_or(|&count| count == 0) {
            assert!(self.free.insert(index), "slot {index} is free twice");
        }
    }

    fn one_less(&mut self, index: u16) {
        *self.segments.get_mut(&index).unwrap() -= 1;
        self.unless_used(index);
    }
}

fn chosen<T>(list: &mut Vec<T>, number: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(number % list.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_slot_has_one_owner(steps in prop::collection::vec(step(), 1..200)) {
        let mut pool = pool();
        let mut model = Model { free: (0..SMALL.count as u16).collect(), ..Model::default() };
        // Beside each handle: where its unshared part begins. Beside each segment: the bytes it must have.
        let mut handles: Vec<(Slot, usize)> = Vec::new();
        let mut segments: Vec<(Segment, Vec<u8>)> = Vec::new();
        let mut lent: Vec<Slot> = Vec::new();
        for step in steps {
            match step {
                Step::Take | Step::Lend => {
                    let lending = matches!(step, Step::Lend);
                    let slot = if lending { pool.lend() } else { pool.take() };
                    prop_assert_eq!(slot.is_some(), !model.free.is_empty());
                    let Some(slot) = slot else { continue };
                    prop_assert!(model.free.remove(&slot.id().index), "a used slot was handed out");
                    model.held.insert(slot.id().index);
                    if lending {
                        model.lent.insert(slot.id().index);
                        lent.push(slot);
                    } else {
                        handles.push((slot, 0));
                    }
                }
                Step::Write(slot, at, byte) => {
                    let Some((mut slot, fence)) = chosen(&mut handles, slot) else { continue };
                    let at = usize::from(at).max(fence);
                    if at < slot.size() {
                        let end = slot.size().min(at + 300);
                        slot.bytes_mut(at..end).fill(byte);
                    }
                    handles.push((slot, fence));
                }
                Step::Share(slot, gap, length) => {
                    let Some((mut slot, fence)) = chosen(&mut handles, slot) else { continue };
                    let start = (fence + usize::from(gap) % 3 * 100).min(slot.size());
                    let end = (start + usize::from(length)).min(slot.size());
                    let bytes = slot.bytes(start..end).to_vec();
                    *model.segments.entry(slot.id().index).or_default() += 1;
                    segments.push((pool.share(&mut slot, start..end), bytes));
                    handles.push((slot, end));
                }
                Step::Put(slot) => {
                    let Some((slot, _)) = chosen(&mut handles, slot) else { continue };
                    let index = slot.id().index;
                    model.held.remove(&index);
                    pool.put(slot);
                    model.unless_used(index);
                }
                Step::Release(segment) => {
                    let Some((segment, _)) = chosen(&mut segments, segment) else { continue };
                    let index = segment.slot().index;
                    pool.release(segment);
                    model.one_less(index);
                }
                Step::Advance(segment, count) => {
                    let Some((mut segment, mut bytes)) = chosen(&mut segments, segment) else { continue };
                    let count = usize::from(count).min(bytes.len());
                    segment.advance(count);
                    bytes.drain(..count);
                    segments.push((segment, bytes));
                }
                Step::Merge(front, next) => {
                    let Some((mut front, mut bytes)) = chosen(&mut segments, front) else { continue };
                    let Some((mut next, mut more)) = chosen(&mut segments, next) else {
                        segments.push((front, bytes));
                        continue;
                    };
                    if front.take_in(&mut next) {
                        bytes.append(&mut more);
                    }
                    segments.push((next, more));
                    segments.push((front, bytes));
                }
                Step::Return(slot) => {
                    let Some(slot) = chosen(&mut lent, slot) else { continue };
                    pool.returned(&slot);
                    model.lent.remove(&slot.id().index);
                    handles.push((slot, 0));
                }
                Step::Thaw(slot) => {
                    let Some((mut slot, fence)) = chosen(&mut handles, slot) else { continue };
                    let sole = model.segments.get(&slot.id().index).is_none_or(|&count| count == 0);
                    prop_assert_eq!(pool.thaw(&mut slot), sole);
                    handles.push((slot, if sole { 0 } else { fence }));
                }
                Step::GiveBack => pool.give_back_idle(),
            }
            for (segment, bytes) in &segments {
                prop_assert_eq!(segment.bytes(), &bytes[..]);
                prop_assert_eq!((segment.len(), segment.is_empty()), (bytes.len(), bytes.is_empty()));
            }
            let in_core = SMALL.count - model.free.len() - model.lent.len();
            prop_assert_eq!(pool.census(), (model.free.len(), model.lent.len(), in_core));
            pool.assert_conserved(model.lent.len());
        }
        for (slot, _) in handles {
            pool.put(slot);
        }
        for (segment, _) in segments {
            pool.release(segment);
        }
        for slot in lent {
            pool.returned(&slot);
            pool.put(slot);
        }
        prop_assert_eq!(pool.census(), (SMALL.count, 0, 0));
    }
}

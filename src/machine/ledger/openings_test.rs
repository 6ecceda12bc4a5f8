//! Openings against a list of them.

use proptest::prelude::*;

use super::openings::{Balances, Openings, OpeningsView, Released, Side};

/// What was opened and released, one after another.
#[derive(Debug, Default, Clone)]
struct Model {
    opened: Vec<(u32, Side, Balances)>,
    released: Vec<Released>,
}

impl Model {
    fn write(&self) -> Openings {
        let mut openings = Openings::default();
        for (event, side, balances) in &self.opened {
            openings.push(*event, *side, balances);
        }
        self.released
            .iter()
            .for_each(|released| openings.release(*released));
        openings
    }

    fn check(&self, view: OpeningsView<'_>, events: u32) {
        assert_eq!(view.count() as usize, self.opened.len());
        let records: Vec<Balances> = view.records().collect();
        let balances = self.opened.iter().map(|(_, _, balances)| *balances);
        assert_eq!(records, balances.collect::<Vec<_>>());
        for event in 0..events + 70 {
            for side in [Side::Debit, Side::Credit] {
                let opened = self.opened.iter().find(|o| o.0 == event && o.1 == side);
                assert_eq!(view.is_opening(event, side), opened.is_some());
                assert_eq!(view.find(event, side), opened.map(|o| o.2));
            }
            let released = self.released.iter().find(|r| r.row == event);
            assert_eq!(view.released(event), released.copied());
        }
    }
}

fn balance() -> impl Strategy<Value = u128> {
    prop_oneof![
        Just(0),
        0u128..300,
        any::<u64>().prop_map(u128::from),
        any::<u128>(),
        Just(u128::MAX)
    ]
}

fn balances() -> impl Strategy<Value = Balances> {
    (balance(), balance(), balance(), balance(), any::<bool>()).prop_map(
        |(debits_pending, debits_posted, credits_pending, credits_posted, closed)| Balances {
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            closed,
        },
    )
}

fn model() -> impl Strategy<Value = (Model, u32)> {
    let side = prop_oneof![
        Just(vec![]),
        Just(vec![Side::Debit]),
        Just(vec![Side::Credit]),
        Just(vec![Side::Debit, Side::Credit])
    ];
    let released = prop::option::weighted(0.1, (balance(), 0u16..512));
    let event = (side, balances(), balances(), released);
    prop::collection::vec(event, 0..150).prop_map(|events| {
        let mut model = Model::default();
        let count = u32::try_from(events.len()).unwrap();
        for (number, (sides, debit, credit, released)) in (0..).zip(events) {
            for side in sides {
                let balances = if side == Side::Debit { debit } else { credit };
                model.opened.push((number, side, balances));
            }
            if let Some((amount, flags)) = released {
                model.released.push(Released {
                    row: number,
                    amount,
                    flags,
                });
            }
        }
        (model, count)
    })
}

proptest! {
    #[test]
    fn what_was_opened_is_found((model, events) in model()) {
        let openings = model.write();
        model.check(openings.view(), events);
        let words = openings.encode();
        prop_assert_eq!(words.len() * 4, openings.encoded_size());
        let decoded = Openings::decode(&words, events).unwrap();
        model.check(decoded.view(), events);
        prop_assert_eq!(&decoded.encode(), &words);
        if !model.opened.is_empty() {
            prop_assert!(Openings::decode(&words, 0).is_none());
        }
    }

    #[test]
    fn what_is_taken_back_never_was((model, events) in model(), at in 0u32..150) {
        // Events and rows are the same numbers here.
        let mut openings = model.write();
        openings.truncate(at, at);
        let mut kept = model.clone();
        kept.opened.retain(|opened| opened.0 < at);
        kept.released.retain(|released| released.row < at);
        kept.check(openings.view(), events);
        // And what comes after it is as if nothing had been.
        for (event, side, balances) in model.opened.iter().filter(|opened| opened.0 >= at) {
            openings.push(*event, *side, balances);
        }
        let released = model.released.iter().filter(|released| released.row >= at);
        released.for_each(|released| openings.release(*released));
        prop_assert_eq!(openings.encode(), model.write().encode());
    }

    #[test]
    fn damage_is_refused_or_harmless((model, events) in model(), at in any::<prop::sample::Index>(), bit in 0u32..32) {
        let mut words = model.write().encode();
        let at = at.index(words.len());
        words[at] ^= 1 << bit;
        if let Some(openings) = Openings::decode(&words, events) {
            for event in 0..events + 40 {
                openings.view().find(event, Side::Debit);
                openings.view().find(event, Side::Credit);
                openings.view().released(event);
            }
        }
        let cut = Openings::decode(&words[..at], events);
        prop_assert!(cut.is_none() || words.len() - at <= 1);
    }
}

use proptest::prelude::*;

use crate::world::{SECOND, Weather, World};

const CALM: Weather = Weather {
    delay: SECOND / 50,
    loses_one_in: 0,
    pauses_one_in: 0,
    pause: 0,
    drift: 0,
    stops_one_in: 0,
};

/// Everything at once: answers after seconds, every fourth message lost, processes that sleep for
/// half a minute, clocks that are off by a fifth.
const STORM: Weather = Weather {
    delay: 4 * SECOND,
    loses_one_in: 4,
    pauses_one_in: 6,
    pause: 30 * SECOND,
    drift: 180,
    stops_one_in: 40,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn two_never_lead_at_once(
        seed in any::<u64>(),
        processes in 2usize..4,
        delay in 1..STORM.delay,
        loses_one_in in 0..20u64,
        pauses_one_in in 0..20u64,
        stops_one_in in 0..60u64,
    ) {
        // Once in 1 would be always.
        let some = |one_in: u64| if one_in < 3 { 0 } else { one_in };
        let weather = Weather {
            delay,
            loses_one_in: some(loses_one_in),
            pauses_one_in: some(pauses_one_in),
            stops_one_in: some(stops_one_in),
            ..STORM
        };
        let mut world = World::new(seed, processes, weather);
        world.run_until(1200 * SECOND);
        // When the storm is over, somebody leads, and stays.
        world.weather = CALM;
        world.run_until(1300 * SECOND);
        let leaders = world.leaders();
        prop_assert_eq!(leaders.len(), 1);
        for second in 1301..1400 {
            world.run_until(second * SECOND);
            prop_assert_eq!(&world.leaders(), &leaders);
        }
    }
}

#[test]
fn leadership_changes_hands_in_a_storm() {
    let mut world = World::new(7, 3, STORM);
    world.run_until(3600 * SECOND);
    assert!(world.terms > 20, "{} terms prove little", world.terms);
}

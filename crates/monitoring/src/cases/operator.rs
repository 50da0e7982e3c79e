//! The operator itself.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Case, Labels};
use crate::alerts::operator::ABSENT;

const VERSION: Labels<'_> = &[("version", "0.1.0")];
const KIND: Labels<'_> = &[("kind", "Backup")];
const NONE: Labels<'_> = &[];
const SHOP: Labels<'_> = &[("watches", "shop")];
const BANK: Labels<'_> = &[("watches", "bank")];

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            ABSENT,
            "an operator that is gone pages after five minutes, until one is back",
        )
        .given(
            metric::BUILD_INFO,
            VERSION,
            &[(Some(1), 10), (None, 20), (Some(1), 10)],
        )
        .quiet_at(9)
        .quiet_at(14)
        .fires_at(16, NONE)
        .quiet_at(30),
        Case::new(ABSENT, "one of two is enough")
            .given_of(
                "a",
                metric::BUILD_INFO,
                VERSION,
                &[(Some(1), 10), (None, 30)],
            )
            .given_of("b", metric::BUILD_INFO, VERSION, &[(Some(1), 40)])
            .quiet_at(35),
        Case::new(
            "TidelockNoLeader",
            "two replicas of which none leads page after five minutes, until one does",
        )
        .given_of("a", metric::LEADER, NONE, &[(Some(1), 10), (Some(0), 30)])
        .given_of("b", metric::LEADER, NONE, &[(Some(0), 30), (Some(1), 10)])
        .given_of("a", metric::CACHES_FILLED, NONE, &[(Some(1), 40)])
        .given_of("b", metric::CACHES_FILLED, NONE, &[(Some(1), 40)])
        .quiet_at(9)
        .quiet_at(14)
        .fires_at(16, NONE)
        .quiet_at(30),
        Case::new(
            "TidelockNoLeader",
            "a leader whose caches do not fill sees nothing, and pages too",
        )
        .given_of("a", metric::LEADER, NONE, &[(Some(1), 40)])
        .given_of(
            "a",
            metric::CACHES_FILLED,
            NONE,
            &[(Some(0), 20), (Some(1), 20)],
        )
        .fires_at(10, NONE)
        .quiet_at(20),
        Case::new(
            "TidelockNoLeader",
            "an operator of one namespace that leads does not hide that none does in another",
        )
        .given_of("a", metric::LEADER, SHOP, &[(Some(1), 40)])
        .given_of("a", metric::CACHES_FILLED, SHOP, &[(Some(1), 40)])
        .given_of(
            "b",
            metric::LEADER,
            BANK,
            &[(Some(1), 10), (Some(0), 20), (Some(1), 10)],
        )
        .given_of("b", metric::CACHES_FILLED, BANK, &[(Some(1), 40)])
        .quiet_at(14)
        .fires_at(16, BANK)
        .quiet_at(30),
        Case::new(
            "TidelockReconcileErrors",
            "an object that keeps failing is told after a quarter of an hour, until it succeeds",
        )
        .given(
            metric::FAILING_OBJECTS,
            KIND,
            &[(Some(0), 10), (Some(1), 30), (Some(0), 10)],
        )
        .quiet_at(24)
        .fires_at(26, KIND)
        .quiet_at(40),
        Case::new(
            "TidelockClockSkew",
            "a clock that is off by two minutes is told, until it is right",
        )
        .given_foreign(
            metric::CLOCK.name,
            &[("instance", "a"), ("pod", "p")],
            &[
                (Some(0), 1),
                (Some(60), 1),
                (Some(120), 1),
                (Some(180), 12),
                (None, 10),
            ],
        )
        .quiet_at(4)
        .quiet_at(8)
        .fires_at(11, &[("instance", "a")])
        .quiet_at(16),
        Case::new(
            "TidelockSeriesLeftOut",
            "objects without series are told, until all have them",
        )
        .given(
            metric::LEFT_OUT,
            KIND,
            &[(Some(0), 10), (Some(5), 20), (Some(0), 10)],
        )
        .quiet_at(14)
        .fires_at(16, KIND)
        .quiet_at(30),
    ]
}

/// What the chart's alerts do for operators of [`super::NAMESPACES`].
pub fn cases_of_namespaces() -> Vec<Case> {
    let build = |namespace| [VERSION[0], ("watches", namespace)];
    let (shop, bank) = (build("shop"), build("bank"));
    vec![
        Case::new(
            ABSENT,
            "an operator of one namespace does not hide that the one of another is gone",
        )
        .given_of("a", metric::BUILD_INFO, &shop, &[(Some(1), 50)])
        .given_of(
            "b",
            metric::BUILD_INFO,
            &bank,
            &[(Some(1), 10), (None, 20), (Some(1), 20)],
        )
        .quiet_at(14)
        .fires_at(16, BANK)
        .quiet_at(30),
        Case::new(ABSENT, "one that never came is absent too")
            .given_of("b", metric::BUILD_INFO, &bank, &[(Some(1), 20)])
            .quiet_at(4)
            .fires_at(6, SHOP),
    ]
}

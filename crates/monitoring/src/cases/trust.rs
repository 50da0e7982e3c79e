//! Backups that were made and cannot be relied on, and where they are kept.

use tidelock_operator::telemetry::metrics::table as metric;

use super::backups::POLICY;
use super::{Case, Labels};
use crate::names::{KUBELET_AVAILABLE, KUBELET_CAPACITY};

const COMPLETED: Labels<'_> = &[POLICY[0], POLICY[1], ("phase", "Completed")];
const FAILED: Labels<'_> = &[POLICY[0], POLICY[1], ("phase", "Failed")];
const NOT_FOUND: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "StorageNotFound")];
const DENIED: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "StorageDenied")];
const NO_SOURCE: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "PVCNotFound")];
const CLAIMS: Labels<'_> = &[
    POLICY[0],
    POLICY[1],
    ("pvc", "data"),
    ("storage_pvc", "backup-storage"),
];
const VOLUME: Labels<'_> = &[
    ("namespace", "shop"),
    ("persistentvolumeclaim", "backup-storage"),
    ("node", "n"),
];
const VOLUME_ELSEWHERE: Labels<'_> = &[VOLUME[0], VOLUME[1], ("node", "m")];
const STRANGE_VOLUME: Labels<'_> = &[
    ("namespace", "shop"),
    ("persistentvolumeclaim", "other"),
    ("node", "n"),
];
const BACKUP_STORAGE: Labels<'_> = &[("namespace", "shop"), ("storage", "offsite")];
const STORAGE: Labels<'_> = &[("namespace", "shop"), ("storage_pvc", "backup-storage")];

pub fn cases() -> Vec<Case> {
    let mut all = verification();
    all.extend(holdings());
    all.extend(storage());
    all
}

fn verification() -> Vec<Case> {
    vec![
        Case::new("TidelockVerificationFailed", "rot pages at once, until what is damaged is deleted")
            .given(metric::POLICY_DAMAGED_BACKUPS, POLICY, &[(Some(0), 10), (Some(2), 20), (Some(0), 10)])
            .quiet_at(9)
            .fires_at(10, POLICY)
            .quiet_at(30),
        Case::new("TidelockVerificationStale", "a slot for reading again may be a day late")
            .given(metric::POLICY_VERIFICATION_OVERDUE_SINCE, POLICY, &[(Some(-86_000), 20), (None, 10)])
            .quiet_at(6)
            .fires_at(7, POLICY)
            .quiet_at(21),
        Case::new("TidelockVerificationStale", "35 days without anything read are too long, but for a policy that reads nothing back or is suspended")
            .given(metric::POLICY_LAST_VERIFIED, POLICY, &[(Some(-3_024_000), 40)])
            .given(metric::POLICY_VERIFIES, POLICY, &[(Some(0), 10), (Some(1), 30)])
            .given(metric::POLICY_SUSPENDED, POLICY, &[(Some(0), 20), (Some(1), 20)])
            .quiet_at(9)
            .fires_at(10, POLICY)
            .quiet_at(20),
    ]
}

fn holdings() -> Vec<Case> {
    vec![
        Case::new(
            "TidelockBackupSuspicious",
            "a volume that shrank is told, until it is accepted or the next backup is as expected",
        )
        .given(
            metric::POLICY_LAST_SUSPICIOUS,
            POLICY,
            &[(Some(0), 10), (Some(1), 20), (Some(0), 10)],
        )
        .quiet_at(9)
        .fires_at(10, POLICY)
        .quiet_at(30),
        Case::new(
            "TidelockFewGoodBackups",
            "one good backup of many pages, until there are more",
        )
        .given(
            metric::POLICY_GOOD_BACKUPS,
            POLICY,
            &[(Some(3), 10), (Some(1), 20), (Some(2), 10)],
        )
        .given(metric::POLICY_KEEP_LAST, POLICY, &[(Some(7), 40)])
        .given(metric::POLICY_BACKUPS, COMPLETED, &[(Some(2), 40)])
        .given(metric::POLICY_BACKUPS, FAILED, &[(Some(2), 40)])
        .quiet_at(14)
        .fires_at(16, POLICY)
        .quiet_at(30),
        Case::new(
            "TidelockFewGoodBackups",
            "none at all after there was one pages whatever is to be kept",
        )
        .given(metric::POLICY_GOOD_BACKUPS, POLICY, &[(Some(0), 20)])
        .given(metric::POLICY_LAST_SUCCESS, POLICY, &[(Some(60), 20)])
        .fires_at(10, POLICY),
        Case::new(
            "TidelockFewGoodBackups",
            "a policy made yesterday has one, and so has one that keeps one",
        )
        .given(metric::POLICY_GOOD_BACKUPS, POLICY, &[(Some(1), 40)])
        .given(
            metric::POLICY_KEEP_LAST,
            POLICY,
            &[(Some(7), 20), (Some(1), 20)],
        )
        .given(
            metric::POLICY_BACKUPS,
            COMPLETED,
            &[(Some(1), 20), (Some(9), 20)],
        )
        .given(metric::POLICY_BACKUPS, FAILED, &[(Some(1), 40)])
        .quiet_at(15)
        .quiet_at(35),
    ]
}

fn storage() -> Vec<Case> {
    vec![
        Case::new(
            "TidelockStorageNotReady",
            "a backup that waits for its storage pages, until it is there",
        )
        .given(
            metric::POLICY_WAITING,
            NOT_FOUND,
            &[(None, 10), (Some(1), 20), (None, 10)],
        )
        .quiet_at(14)
        .fires_at(16, NOT_FOUND)
        .quiet_at(31),
        Case::new(
            "TidelockStorageNotReady",
            "so does one that storage refused, but not one whose source is missing",
        )
        .given(metric::POLICY_LAST_FAILURE, DENIED, &[(Some(1), 20)])
        .given(metric::POLICY_WAITING, NO_SOURCE, &[(Some(1), 20)])
        .fires_at(10, DENIED),
        Case::new(
            "TidelockBackupStorageNotReady",
            "a storage that cannot be used for a quarter of an hour pages, until it can",
        )
        .given(
            metric::STORAGE_UNUSABLE_SINCE,
            BACKUP_STORAGE,
            &[(None, 10), (Some(600), 30), (None, 10)],
        )
        .quiet_at(20)
        .fires_at(27, BACKUP_STORAGE)
        .quiet_at(41),
        Case::new(
            "TidelockStorageNearlyFull",
            "storage with a tenth left is told, other volumes are not, and more room clears it",
        )
        .given(metric::POLICY_INFO, CLAIMS, &[(Some(1), 500)])
        .given_foreign(
            KUBELET_CAPACITY,
            VOLUME,
            &[(Some(100), 30), (Some(200), 470)],
        )
        .given_foreign(
            KUBELET_AVAILABLE,
            VOLUME,
            &[(Some(10), 10), (Some(9), 20), (Some(109), 470)],
        )
        .given_foreign(KUBELET_CAPACITY, STRANGE_VOLUME, &[(Some(100), 500)])
        .given_foreign(KUBELET_AVAILABLE, STRANGE_VOLUME, &[(Some(1), 500)])
        .quiet_at(9)
        .fires_at(10, STORAGE)
        .quiet_at(31),
        Case::new(
            "TidelockStorageNearlyFull",
            "what was last known stands for six hours after the mover has gone",
        )
        .given(metric::POLICY_INFO, CLAIMS, &[(Some(1), 500)])
        .given_foreign(KUBELET_CAPACITY, VOLUME, &[(Some(100), 10), (None, 490)])
        .given_foreign(KUBELET_AVAILABLE, VOLUME, &[(Some(1), 10), (None, 490)])
        .fires_at(300, STORAGE)
        .quiet_at(400),
        Case::new(
            "TidelockStorageNearlyFull",
            "more room that a mover on another node sees clears it at once and for good",
        )
        .given(metric::POLICY_INFO, CLAIMS, &[(Some(1), 200)])
        .given_foreign(KUBELET_CAPACITY, VOLUME, &[(Some(100), 10), (None, 190)])
        .given_foreign(KUBELET_AVAILABLE, VOLUME, &[(Some(1), 10), (None, 190)])
        .given_foreign(
            KUBELET_CAPACITY,
            VOLUME_ELSEWHERE,
            &[(None, 30), (Some(100), 5), (None, 165)],
        )
        .given_foreign(
            KUBELET_AVAILABLE,
            VOLUME_ELSEWHERE,
            &[(None, 30), (Some(50), 5), (None, 165)],
        )
        .fires_at(5, STORAGE)
        .fires_at(29, STORAGE)
        .quiet_at(31)
        .quiet_at(60)
        .quiet_at(190),
        Case::new(
            "TidelockUnknownArchives",
            "archives that nobody knows are told until they are gone",
        )
        .given(
            metric::POLICY_UNKNOWN_ARCHIVES,
            POLICY,
            &[(Some(0), 10), (Some(3), 20), (Some(0), 10)],
        )
        .quiet_at(9)
        .fires_at(10, POLICY)
        .quiet_at(30),
    ]
}

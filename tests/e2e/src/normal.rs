//! Takes out of names and texts what differs between two runs that did the same.

/// Letters of a hash in a name.
const HASH: usize = 10;
/// Letters of a UID.
const UID: usize = 36;
/// What a hash follows.
const MARKS: [&str; 2] = ["tidelock-delete-", "-check-"];

/// `name` without the slot it stands for, and without the hash of UIDs.
pub fn name(name: &str) -> String {
    let hash = |rest: &str| {
        let hash = rest.get(..HASH)?;
        let is_hash = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some((HASH, "<hash>"))
    };
    let name = MARKS
        .iter()
        .fold(name.to_owned(), |name, mark| replace(&name, mark, hash));
    replace(&name, "-", |rest| {
        let (date, time) = rest.get(..15)?.split_once('-')?;
        let digits = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        (digits(date, 8) && digits(time, 6)).then_some((15, "<slot>"))
    })
}

/// `text` for a person, without numbers: sizes, durations and times differ.
pub fn sentence(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in name(text).chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !plain.ends_with('#') {
            plain.push(letter);
        }
    }
    plain
}

/// `text` without UIDs.
pub fn without_uids(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if begins_with_uid(rest) {
            plain.push_str("<uid>");
            UID
        } else {
            plain.push(next);
            next.len_utf8()
        };
        rest = &rest[length..];
    }
    plain
}

fn begins_with_uid(text: &str) -> bool {
    let Some(head) = text.get(..UID) else {
        return false;
    };
    let parts: Vec<&str> = head.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(is_hex)
}

/// Replaces what follows each `mark` where `measure` says how long it is and what stands for it.
fn replace(
    text: &str,
    mark: &str,
    measure: impl Fn(&str) -> Option<(usize, &'static str)>,
) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        plain.push_str(before);
        plain.push_str(mark);
        rest = after;
        if let Some((length, stands_for)) = measure(rest) {
            plain.push_str(stands_for);
            rest = &rest[length..];
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_hashes_go_and_nothing_else() {
        assert_eq!(
            name("my-policy-20260102-030405-backup"),
            "my-policy-<slot>-backup"
        );
        assert_eq!(
            name("tidelock-delete-0123456789-x7k2p"),
            "tidelock-delete-<hash>-x7k2p"
        );
        assert_eq!(name("of-calm-2"), "of-calm-2");
    }

    #[test]
    fn uids_go_wherever_they_stand() {
        let uid = "cd45076b-fdc1-4d8a-b1b3-827b792a0af2";
        assert_eq!(without_uids(&format!("{uid},ü{uid}.")), "<uid>,ü<uid>.");
        assert_eq!(without_uids(&uid[1..]), uid[1..]);
    }

    #[test]
    fn numbers_do_not_tell_sentences_apart() {
        assert_eq!(
            sentence("Completed in 12s: 1.5 MiB"),
            sentence("Completed in 3s: 22.41 MiB")
        );
        assert_ne!(sentence("Completed in 3s"), sentence("Failed in 3s"));
    }
}

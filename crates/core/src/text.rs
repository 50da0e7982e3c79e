//! Durations and sizes in words for people.

use jiff::SignedDuration;

/// A duration as `6s`, `1m6s`, `2h3m` or `3d4h`; under a second is `0s`.
pub fn duration(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, 0) => format!("{m}m"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, 0, _) => format!("{h}h"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, 0, _, _) => format!("{d}d"),
        (d, h, _, _) => format!("{d}d{h}h"),
    }
}

/// A size in bytes as `999 B`, `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `words` with a capital first letter and a full stop.
pub fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let mut sentence: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    sentence.push_str(letters.as_str());
    if !sentence.ends_with(['.', '!', '?', '…']) {
        sentence.push('.');
    }
    sentence
}

/// `words` of others as one line of at most `most` bytes: what is no letter, digit, sign or space is
/// a space, and spaces do not follow each other.
pub fn quoted(words: &str, most: usize) -> String {
    let plain = words.replace(
        |letter: char| letter.is_control() || is_invisible(letter),
        " ",
    );
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= most {
        return line;
    }
    let end = line.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    format!("{}…", line[..end].trim_end())
}

/// Whether a letter changes how others are shown instead of being shown: marks of direction, joiners
/// and separators of lines.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `1 file`, `2 files`.
pub fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let cases = [
            (0, "0s"),
            (6, "6s"),
            (66, "1m6s"),
            (120, "2m"),
            (7380, "2h3m"),
            (273_600, "3d4h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(duration(SignedDuration::from_secs(-5)), "0s");
    }

    #[test]
    fn words_become_a_sentence() {
        assert_eq!(sentence("told to stop"), "Told to stop.");
        assert_eq!(sentence("Done."), "Done.");
        assert_eq!(sentence(""), ".");
    }

    #[test]
    fn words_of_others_become_one_bounded_line_without_tricks() {
        assert_eq!(quoted("a\n\tb\u{1b}[31m  c\u{202e}d", 99), "a b [31m c d");
        assert_eq!(quoted("äöü", 99), "äöü");
        let cut = quoted(&"ä".repeat(99), 20);
        assert!(cut.len() <= 20 && cut.ends_with('…'), "{cut}");
    }

    #[test]
    fn sizes_read_as_people_say_them() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (12_897_485, "12.3 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}

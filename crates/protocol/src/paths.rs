use serde::{Deserialize, Serialize};

/// The first few of many paths, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSample {
    /// How many in all.
    pub total: u64,
    /// The first ones, relative to the volume's root; bytes that are not printable UTF-8 are
    /// escaped as `\xNN`, long ones shortened in the middle.
    pub first: Vec<String>,
}

impl PathSample {
    /// How many paths a sample holds.
    pub const MAX_FIRST: usize = 10;
    /// Longest path kept, in bytes; ten of them fit a termination message beside the rest.
    pub const MAX_PATH_BYTES: usize = 160;

    /// Counts a path and keeps it while there is room.
    pub fn push(&mut self, path: &[u8]) {
        self.total += 1;
        if self.first.len() < Self::MAX_FIRST {
            self.first.push(printable(path));
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// `path` as one printable line of bounded length.
fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' || c == '"' {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shorten_middle(&text, PathSample::MAX_PATH_BYTES)
}

/// `text` in at most `max` bytes: its start, `…`, its end.
pub(crate) fn shorten_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = (max - '…'.len_utf8()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}…{}", &text[..head], &text[tail..])
}

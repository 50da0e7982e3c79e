//! Trees to measure with, the same for the same seed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use clap::ValueEnum;
use tidelock_benchmarks::Contest;

/// A small file of each tree, in the midst of the large ones.
pub const NEEDLE: &str = "large-2";

/// A kind of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Many small text-like files: 200,000 of them, 1.7 GB.
    S,
    /// A mix as on an application's volume: text, records, pictures, logs; 1.6 GB.
    M,
    /// A few large files, half of them incompressible: 2 GB.
    L,
    /// Sparse files as a database makes them, with a write-ahead log: 3 GB, of which 0.4 are there.
    D,
    /// Noise, so that the archive has more than 4 GiB: 4.5 GB, out of which one file is taken.
    X,
}

impl Shape {
    /// Makes the tree below `root`, at `percent` of its full size.
    pub fn make(self, root: &Path, percent: u64) -> io::Result<()> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + self as u64);
        fs::write(root.join(NEEDLE), "a needle\n")?;
        match self {
            Self::S => small(root, 2_000 * percent, &mut random),
            Self::M => mixed(root, 200 * percent, &mut random),
            Self::L => large(root, (5 << 20) * percent, &mut random),
            Self::D => sparse(root, (10 << 20) * percent, &mut random),
            Self::X => noise(root, percent, &mut random),
        }
    }

    /// What is measured with it.
    pub fn contests(self) -> &'static [Contest] {
        match self {
            Self::X => &[Contest::OneFile, Contest::Upload, Contest::Download],
            _ => Contest::value_variants(),
        }
    }
}

/// Xorshift: quick, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// Small numbers often, large ones rarely.
    fn skewed(&mut self, limit: u64) -> u64 {
        let once = self.below(limit) + 1;
        self.below(once)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Text like source code: lines, indentation, some words often and most rarely.
fn text(length: usize, random: &mut Random) -> Vec<u8> {
    const SYLLABLES: [&str; 24] = [
        "con", "fig", "re", "ad", "er", "in", "dex", "val", "ue", "map", "to", "key", "str", "buf",
        "len", "set", "get", "is", "new", "err", "io", "path", "un", "ty",
    ];
    let words: Vec<String> = (0..4_000)
        .map(|_| {
            let parts = 1 + random.below(4);
            let mut word = String::new();
            for _ in 0..parts {
                word.push_str(SYLLABLES[random.below(24) as usize]);
            }
            word
        })
        .collect();
    let mut text = Vec::with_capacity(length + 200);
    while text.len() < length {
        text.resize(text.len() + 4 * random.skewed(6) as usize, b' ');
        for _ in 0..=random.below(9) {
            text.extend_from_slice(words[random.skewed(4_000) as usize].as_bytes());
            text.push(b" .,(=_:"[random.skewed(7) as usize]);
        }
        if random.below(4) == 0 {
            text.extend_from_slice(random.below(1 << 30).to_string().as_bytes());
        }
        text.push(b'\n');
    }
    text.truncate(length);
    text
}

/// Gives stretches of a pool of text.
struct Pool(Vec<u8>);

impl Pool {
    fn new(random: &mut Random) -> Self {
        Self(text(48 << 20, random))
    }

    fn stretch(&self, length: usize, random: &mut Random) -> &[u8] {
        let start = random.below((self.0.len() - length) as u64) as usize;
        &self.0[start..start + length]
    }
}

fn small(root: &Path, files: u64, random: &mut Random) -> io::Result<()> {
    let pool = Pool::new(random);
    for n in 0..files {
        let dir = root.join(format!("{:02}/{:04}", n / 10_000, n / 100));
        if n % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let length = 200 + random.skewed(33_000) as usize;
        fs::write(
            dir.join(format!("file-{n:06}.rs")),
            pool.stretch(length, random),
        )?;
    }
    Ok(())
}

fn mixed(root: &Path, files: u64, random: &mut Random) -> io::Result<()> {
    let pool = Pool::new(random);
    let mut bytes = vec![0; 1 << 20];
    for n in 0..files {
        let dir = root.join(format!("{:03}", n / 200));
        if n % 200 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let path = dir.join(format!("item-{n:06}"));
        match random.below(100) {
            0..60 => fs::write(
                path,
                pool.stretch(500 + random.skewed(40_000) as usize, random),
            )?,
            60..80 => {
                // Records: counters and texts beside noise.
                let length = 10_000 + random.skewed(200_000) as usize;
                random.fill(&mut bytes[..length]);
                for (at, record) in bytes[..length].chunks_mut(64).enumerate() {
                    let kept = record.len().min(44);
                    record[..kept].fill((at % 7) as u8);
                }
                fs::write(path, &bytes[..length])?;
            }
            80..99 => {
                let length = 30_000 + random.skewed(700_000) as usize;
                random.fill(&mut bytes[..length]);
                fs::write(path, &bytes[..length])?;
            }
            _ => fs::write(
                path,
                pool.stretch((1 << 20) + random.below(4 << 20) as usize, random),
            )?,
        }
    }
    Ok(())
}

fn large(root: &Path, each: u64, random: &mut Random) -> io::Result<()> {
    let pool = Pool::new(random);
    let mut bytes = vec![0; 1 << 20];
    for n in 0..4 {
        let file = File::create(root.join(format!("large-{n}.bin")))?;
        for at in (0..each).step_by(1 << 20) {
            if n % 2 == 0 {
                random.fill(&mut bytes);
                file.write_all_at(&bytes, at)?;
            } else {
                file.write_all_at(pool.stretch(1 << 20, random), at)?;
            }
        }
    }
    Ok(())
}

/// 43 files of 100 MiB at full size, half of them with a name before the needle's.
fn noise(root: &Path, mib_per_file: u64, random: &mut Random) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 20];
    for n in 0..43 {
        let file = File::create(root.join(format!("large-{}-{n:02}.bin", 1 + n % 2 * 2)))?;
        for at in 0..mib_per_file {
            random.fill(&mut bytes);
            file.write_all_at(&bytes, at << 20)?;
        }
    }
    Ok(())
}

fn sparse(root: &Path, each: u64, random: &mut Random) -> io::Result<()> {
    const PAGE: u64 = 8 << 10;
    let pool = Pool::new(random);
    let mut page = vec![0; PAGE as usize];
    for n in 0..3 {
        let file = File::create(root.join(format!("table-{n}.db")))?;
        file.set_len(each)?;
        // Extents of some pages, an eighth of the file in all.
        for _ in 0..each / PAGE / 8 / 16 {
            let start = random.below(each / PAGE - 16) * PAGE;
            for offset in 0..16 {
                page.fill(0);
                random.fill(&mut page[..1024]);
                page[1024..6144].copy_from_slice(pool.stretch(5120, random));
                file.write_all_at(&page, start + offset * PAGE)?;
            }
        }
    }
    let log = File::create(root.join("write-ahead.log"))?;
    for at in (0..each / 16).step_by(1 << 20) {
        log.write_all_at(pool.stretch(1 << 20, random), at)?;
    }
    Ok(())
}

//! Members as zstd has them.

use std::io;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, find_frame_compressed_size, get_error_name,
    get_frame_content_size,
};

use super::{OTHER_SIZE, not_expanded, not_squeezed};

/// Level of the members.
const LEVEL: i32 = 3;
/// Tables of twice the level's own size, which make up for a part of what cutting costs (measured:
/// docs/benchmarks.md).
const HASH_LOG: u32 = 18;
const CHAIN_LOG: u32 = 17;
/// How much is compressed at once: a block, which is the most that zstd works on.
const STEP_BYTES: usize = 128 << 10;
/// First bytes of a frame. Skippable frames have others, and hold nothing.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Makes zstd frames.
pub(crate) struct Squeezer {
    context: CCtx<'static>,
    /// What was compressed and has no place yet.
    out: Vec<u8>,
}

impl Squeezer {
    pub(super) fn new() -> io::Result<Self> {
        let mut context =
            CCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::HashLog(HASH_LOG),
            CParameter::ChainLog(CHAIN_LOG),
            // For those who have nothing but `zstd`; the index has a better digest.
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(fault)?;
        }
        Ok(Self {
            context,
            out: Vec::with_capacity(2 * STEP_BYTES),
        })
    }

    /// Puts one frame that holds `bytes` in their place.
    ///
    /// zstd keeps what it still looks back to, so the frame may stand where bytes were that it has
    /// taken. A second buffer of a member's size for each thread would cost more than that.
    pub(super) fn squeeze(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = bytes.len();
        // With it the frame tells its size, by which a reader bounds what it takes.
        let size = Some(length as u64);
        self.context.set_pledged_src_size(size).map_err(fault)?;
        self.out.clear();
        let (mut read, mut written) = (0, 0);
        loop {
            let end = length.min(read + STEP_BYTES);
            let operation = if end == length {
                ZSTD_e_end
            } else {
                ZSTD_e_continue
            };
            let mut input = InBuffer::around(&bytes[read..end]);
            let held = self.out.len();
            self.out.reserve(STEP_BYTES);
            let mut output = OutBuffer::around_pos(&mut self.out, held);
            let left = self
                .context
                .compress_stream2(&mut output, &mut input, operation)
                .map_err(fault)?;
            read += input.pos();
            if read == length && end == length && left == 0 {
                break;
            }
            let free = self.out.len().min(read - written);
            bytes[written..written + free].copy_from_slice(&self.out[..free]);
            self.out.drain(..free);
            written += free;
        }
        bytes.truncate(written);
        bytes.extend_from_slice(&self.out);
        Ok(())
    }
}

fn fault(code: usize) -> io::Error {
    not_squeezed(get_error_name(code))
}

/// What the one frame `compressed` holds.
///
/// The whole frame is decompressed into memory of the promised size, so neither what it claims of
/// its content nor the window that it asks for takes any.
pub(super) fn expand(compressed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let of_zstd = |code| not_expanded(get_error_name(code));
    if !compressed.starts_with(&MAGIC) {
        return Err(not_expanded("it is no zstd frame"));
    }
    let frame = find_frame_compressed_size(compressed).map_err(of_zstd)?;
    let told = get_frame_content_size(compressed).map_err(not_expanded)?;
    let told = told.ok_or_else(|| not_expanded("its frame does not tell its size"))?;
    if frame != compressed.len() || told != size as u64 {
        return Err(OTHER_SIZE.to_owned());
    }
    let mut context = DCtx::try_create().ok_or_else(|| not_expanded("out of memory"))?;
    let mut content = Vec::with_capacity(size);
    context
        .decompress(&mut content, compressed)
        .map_err(of_zstd)?;
    if content.len() != size {
        return Err(OTHER_SIZE.to_owned());
    }
    Ok(content)
}

//! One gzip member from memory to memory, with libdeflate.
//!
//! libdeflate decompresses about twice as fast as decoders that stream, and takes members whole,
//! which is what an archive of bounded members has. Its safe wrapper does not tell where a member
//! ends, so that bytes behind it would go unseen; this one takes them for the fault that they are.

use std::ptr::NonNull;

/// Why bytes are not one gzip member with the promised content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOneMember {
    /// They are no gzip member, or a damaged or truncated one.
    #[error("it is no gzip member, or a damaged one")]
    Damaged,
    /// The member holds another number of bytes, as a damaged one may seem to.
    #[error("it holds another number of bytes")]
    OtherSize,
    /// Something follows the member.
    #[error("{0} bytes follow the gzip member")]
    Followed(usize),
    /// There is no memory for the tables.
    #[error("there is no memory to decompress with")]
    NoMemory,
}

/// Decompresses gzip members one after the other, with some 12 KiB of memory.
#[derive(Debug)]
pub struct Gunzip(NonNull<libdeflate_sys::libdeflate_decompressor>);

impl Gunzip {
    /// One that is ready.
    ///
    /// # Errors
    /// [`NotOneMember::NoMemory`].
    pub fn new() -> Result<Self, NotOneMember> {
        // SAFETY: it has no preconditions; null, which it gives without memory, is not kept.
        #[allow(unsafe_code)]
        let made = unsafe { libdeflate_sys::libdeflate_alloc_decompressor() };
        NonNull::new(made).map(Self).ok_or(NotOneMember::NoMemory)
    }

    /// Fills `content` with what the gzip member `member` holds.
    ///
    /// # Guarantees
    /// It ends well only when `member` is one member from its first byte to its last, whose
    /// checksum is right and which holds as many bytes as `content` has. Nothing else is written
    /// to, whatever `member` holds.
    ///
    /// # Errors
    /// What is wrong; `content` then holds anything.
    pub fn member(&mut self, member: &[u8], content: &mut [u8]) -> Result<(), NotOneMember> {
        use libdeflate_sys as c;

        let (mut read, mut written) = (0, 0);
        // SAFETY: the decompressor lives as long as self, and nobody else uses it meanwhile, as self
        // is borrowed mutably. Both buffers are slices given with their lengths, of which
        // libdeflate reads and writes no more; they do not overlap, as one is borrowed mutably. Both
        // counts are places for a usize.
        #[allow(unsafe_code)]
        let result = unsafe {
            c::libdeflate_gzip_decompress_ex(
                self.0.as_ptr(),
                member.as_ptr().cast(),
                member.len(),
                content.as_mut_ptr().cast(),
                content.len(),
                &raw mut read,
                &raw mut written,
            )
        };
        match result {
            c::libdeflate_result_LIBDEFLATE_SUCCESS if written != content.len() => {
                Err(NotOneMember::OtherSize)
            }
            c::libdeflate_result_LIBDEFLATE_SUCCESS if read != member.len() => {
                Err(NotOneMember::Followed(member.len().saturating_sub(read)))
            }
            c::libdeflate_result_LIBDEFLATE_SUCCESS => Ok(()),
            c::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Err(NotOneMember::OtherSize),
            _ => Err(NotOneMember::Damaged),
        }
    }
}

impl Drop for Gunzip {
    fn drop(&mut self) {
        // SAFETY: it was made by libdeflate_alloc_decompressor, and is freed once.
        #[allow(unsafe_code)]
        unsafe {
            libdeflate_sys::libdeflate_free_decompressor(self.0.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests;

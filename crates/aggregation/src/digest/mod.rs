//! The one place that computes MD5: of one message by a well-known crate, of many at once by code of its own.

mod compress;
mod kernel;
mod many;

use md5::{Digest as _, Md5};

use self::kernel::BLOCK_BYTES;
pub(crate) use self::many::md5_many;

/// An MD5.
pub(crate) type Digest = [u8; 16];

/// The MD5 of a message. See [`md5_many`] for many.
pub(crate) fn md5(message: &[u8]) -> Digest {
    Md5::digest(message).into()
}

/// How much is appended before it is hashed.
const STEP: usize = 8 * BLOCK_BYTES;

/// A buffer that hashes what is appended to it.
pub(crate) struct Hashing {
    out: Vec<u8>,
    hashed: usize,
    md5: Md5,
}

impl Hashing {
    /// Hashes nothing of what is in the buffer already.
    pub(crate) fn after(out: Vec<u8>) -> Self {
        Self { hashed: out.len(), out, md5: Md5::new() }
    }

    /// Appends bytes in small steps.
    ///
    /// This costs next to nothing, where copying the whole first takes some percent of the time of its MD5: that is one
    /// chain of dependent instructions, beside which a processor has time to move what was just written.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(STEP) {
            self.append_with(|out| out.extend_from_slice(step));
        }
    }

    /// Appends what a function does.
    pub(crate) fn append_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        append(&mut self.out);
        // Whole blocks are hashed where they are; of others the rest would be copied and kept.
        let waiting = self.out.len() - self.hashed;
        let (whole, _) = self.out[self.hashed..].split_at(waiting - waiting % BLOCK_BYTES);
        self.md5.update(whole);
        self.hashed += whole.len();
    }

    /// The buffer with the digest at its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.md5.update(&self.out[self.hashed..]);
        self.out.extend_from_slice(&self.md5.finalize());
        self.out
    }
}

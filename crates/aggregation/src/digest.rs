//! The one place that computes MD5.

use md5::{Digest, Md5};

/// The MD5 of a message. Everything that hashes goes through here, so that another engine has one place to go.
pub(crate) fn md5(message: &[u8]) -> [u8; 16] {
    Md5::digest(message).into()
}

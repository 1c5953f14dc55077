//! An error in words, with everything that caused it.

/// An error and its causes, outermost first.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// An error and its causes, joined by colons.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}

//! Why something is not a policy.

use crate::{ENCODED_MAX, Operator, TEXT_MAX};

/// Where a text stops being a policy, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (at byte {at})")]
pub struct ParseError {
    /// Bytes before it.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// Why something is not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something else should stand here.
    #[error("expected {0}")]
    Expected(&'static str),
    /// `(` is not followed by an operator.
    #[error("expected an operator: and, or, not, if, <, >, =, !=, member? or exists?")]
    NotAnOperator,
    /// An operator where a value should stand.
    #[error("an operator is no value; write it in front, as in (= subject.role \"admin\")")]
    OperatorAsValue,
    /// An operator with too few or too many arguments, or with some of the wrong kind.
    #[error("`{0}` takes {takes}", takes = .0.takes())]
    Arguments(Operator),
    /// A number without a value of 64 bits, or with letters in it.
    #[error("this is not a number of 64 bits")]
    Number,
    /// Not a number, which nothing is equal to.
    #[error("nan cannot be compared with anything")]
    NotANumber,
    /// A name that no text could say, or not as a name.
    #[error("names begin with a letter and have letters, digits, `.`, `-` and `_`")]
    Name,
    /// A string with `\` before something else than what may follow it.
    #[error("after `\\` comes one of t, n, r, \", ', \\, u{{…}} or two hexadecimal digits")]
    Escape,
    /// A character that would not be seen, or reorders what is seen.
    #[error("invisible characters are written as \\u{{…}} in a full expression")]
    Invisible,
    /// The bytes of a string are not UTF-8.
    #[error("a string must be UTF-8")]
    NotUtf8,
    /// The value after `=` in the boolean form.
    #[error("a value has letters, digits, `.`, `-` and `_`, or anything between quotes, but no quotes itself")]
    BooleanValue,
    /// A sequence with items of more than one kind.
    #[error("the items of a sequence must all be of one kind")]
    MixedSequence,
    /// A full expression that is only a value or a name.
    #[error("a policy must be an operator with its arguments")]
    NotAnApplication,
    /// A full expression that would be a boolean one as it is printed, `(not subject.flag)` in CBOR or with comments, or
    /// that is one for real nodes: `(and)`.
    #[error(
        "this could be of either form; write (= 1 1) for true, (= 1 2) for false, (not (= NAME true)) for a negation"
    )]
    ReadsAsBoolean,
    /// Longer than [`TEXT_MAX`], as it came or as it is printed.
    #[error("a policy has at most {TEXT_MAX} bytes")]
    TooLong,
    /// Deeper than [`DEPTH_MAX`](crate::DEPTH_MAX).
    #[error("a policy may be at most {max} expressions deep", max = crate::DEPTH_MAX)]
    TooDeep,
    /// More than [`NODES_MAX`](crate::NODES_MAX).
    #[error("a policy may have at most {max} parts", max = crate::NODES_MAX)]
    TooManyParts,
    /// Not the CBOR of a policy, or more than [`ENCODED_MAX`] bytes of it.
    #[error("the CBOR of the policy is malformed, cut off, or longer than {ENCODED_MAX} bytes")]
    Malformed,
}

//! Who may: expressions over what is known of a subject and a resource (`wire.md` H.3 to H.5). Pure: text, CBOR and values,
//! nothing else.
//!
//! A [`Policy`] has one of two forms. The boolean form, `admin and not guest`, is about attributes of the subject; the full
//! form, `(and (= subject.role "dba") (member? resource.id ["db" "cache"]))`, is about anything that an [`Environment`]
//! knows.
//!
//! Errors deny. A name that the environment does not know is an error of the whole expression, unless `and`, `or` or `if`
//! had no need to look at it. So without `exists?`, to know less of a subject never permits more: the answer stays the
//! same, or becomes an error, `not` and `!=` included.
//!
//! Where real nodes take more for a policy, this is the stricter one: what it permits, they permit. Operators and their
//! numbers of arguments are checked when a policy is read, not when it is needed; every comparison of a chain has to make
//! sense, even behind one that is false; a text that could be of either form, `(and)`, is refused. But keywords of the
//! boolean form are whole words here, and never names: `nothing` is an attribute, and not `not hing`.

#![forbid(unsafe_code)]

mod boolean;
mod cbor;
mod evaluate;
mod explain;
mod expr;
mod policy;
mod problem;
mod text;

pub use evaluate::{Environment, EvalError, Kind, Value};
pub use explain::{Explanation, Outcome, Step};
pub use expr::{Expr, Operator, Relation};
pub use policy::Policy;
pub use problem::{ParseError, Problem};

/// Longest policy as text, in bytes, as it came and as it is printed.
pub const TEXT_MAX: usize = 16 * 1024;

/// Longest policy as CBOR, in bytes: more than any text of [`TEXT_MAX`] with [`NODES_MAX`] becomes.
pub const ENCODED_MAX: usize = 64 * 1024;

/// How deep expressions may be inside one another.
pub const DEPTH_MAX: usize = 64;

/// How many values, names, sequences and applications a policy may have.
pub const NODES_MAX: usize = 4096;

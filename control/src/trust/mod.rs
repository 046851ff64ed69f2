//! Whom a node believes, and whom it lets pass.

use crate::error::Error;
use crate::process::TrustOptions;
use crate::route::Route;
use ockam_crypto::ChangeHistory;
use ockam_wire::{MultiAddr, Protocol};

/// Longest scope in bytes.
const SCOPE_BYTES_MAX: usize = 255;

/// Reads what a node was told of its authority.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn check(options: &TrustOptions) -> Result<ChangeHistory, Error> {
    let bad = |argument: &str, value: &str, why: String, fix: &str| Error::BadArgument {
        argument: argument.into(),
        value: crate::text::escape(value.as_bytes(), 100),
        why,
        fix: fix.into(),
    };
    let identity = "--authority-identity";
    let export = "`ockam identity show --full --encoding hex` prints the authority's change history.";
    let encoded = crate::text::from_hex(&options.history)
        .ok_or_else(|| bad(identity, &options.history, "is not hexadecimal".into(), export))?;
    let history = ChangeHistory::verify(&encoded)
        .map_err(|error| bad(identity, &options.history, format!("is no identity: {error}"), export))?;
    authority_route(&options.route)?;
    let scope = &options.scope;
    if scope.is_empty() || scope.len() > SCOPE_BYTES_MAX || scope.chars().any(char::is_control) {
        let why = format!("is empty, or longer than {SCOPE_BYTES_MAX} bytes, or has characters that cannot be shown");
        return Err(bad("--credential-scope", scope, why, "Use the id of the project."));
    }
    Ok(history)
}

/// Reads the route to an authority's node: it ends with the listener for secure channels, written `/secure/api` or
/// `/service/api`, or with the node, whose listener is `api` then.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn authority_route(text: &str) -> Result<Route, Error> {
    let bad = |why: String| Error::BadArgument {
        argument: "--authority-route".into(),
        value: crate::text::escape(text.as_bytes(), 300),
        why,
        fix: "Write a route like /ip4/127.0.0.1/tcp/4000/secure/api.".into(),
    };
    let multiaddr: MultiAddr =
        text.parse().map_err(|error: ockam_wire::MultiAddrError| bad(format!("is not a route: {error}")))?;
    let mut parts = multiaddr.protocols().to_vec();
    match parts.pop() {
        Some(Protocol::Secure(name) | Protocol::Service(name)) => parts.push(Protocol::Secure(name)),
        Some(other) => parts.extend([other, Protocol::Secure("api".into())]),
        None => return Err(bad("is empty".into())),
    }
    // A service behind it, so that it is a whole route.
    parts.push(Protocol::Service("echo".into()));
    let multiaddr = MultiAddr::try_from(parts).map_err(|error| bad(format!("is not a route: {error}")))?;
    Route::new(&multiaddr, "--authority-route")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_to_authorities_end_with_their_listener_however_they_are_written() {
        for text in ["/ip4/127.0.0.1/tcp/1/secure/api", "/ip4/127.0.0.1/tcp/1/service/api", "/ip4/127.0.0.1/tcp/1"] {
            let steps: String = authority_route(text).unwrap().steps().iter().map(ToString::to_string).collect();
            assert_eq!(steps, "/ip4/127.0.0.1/tcp/1/secure/api/service/echo", "{text}");
        }
        for bad in ["", "api", "/tcp"] {
            assert!(authority_route(bad).is_err(), "{bad}");
        }
    }
}

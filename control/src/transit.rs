//! Transit rules as they are typed, stored and shown: `FROM=TO[:PORT]`, both networks in CIDR notation or single
//! addresses (`10.0.0.0/8=10.1.0.0/16:4000`, `::1=[fd00::/8]:4000`).

use crate::error::Error;
use ockam_engine_abi::{TransitFrom, TransitRule};
use std::net::IpAddr;

/// Reads a rule.
///
/// # Errors
/// [`Error::BadArgument`], which names the half that is wrong.
pub fn parse(text: &str) -> Result<TransitRule, Error> {
    let refuse = |why: String| Error::BadArgument {
        argument: "--allow-transit".into(),
        value: text.into(),
        why,
        fix: "Write FROM=TO or FROM=TO:PORT, such as 10.0.0.0/8=10.1.0.0/16:4000 or ::1=[fd00::/8]:4000.".into(),
    };
    let (from, to) = text.split_once('=').ok_or_else(|| refuse("has no `=` between FROM and TO".into()))?;
    let (from, (to, port)) = (network(from).map_err(&refuse)?, network_and_port(to).map_err(&refuse)?);
    Ok(TransitRule { from: TransitFrom::Network(from), to, port })
}

/// Where a rule leads: a network, and a port or any.
pub type TransitTarget = ((IpAddr, u8), Option<u16>);

/// Reads what a policy opens: `TO[:PORT]`, as behind the `=` of a rule.
///
/// # Errors
/// [`Error::BadArgument`].
pub fn target(text: &str) -> Result<TransitTarget, Error> {
    network_and_port(text).map_err(|why| Error::BadArgument {
        argument: "resource".into(),
        value: crate::text::escape(text.as_bytes(), 100),
        why,
        fix: "Write TO or TO:PORT, such as 10.1.0.0/16:4000 or [fd00::/8]:4000.".into(),
    })
}

/// Writes where a rule leads as [`target`] reads it.
pub fn target_text(((to, bits), port): TransitTarget) -> String {
    match port {
        Some(port) if to.is_ipv6() => format!("[{to}/{bits}]:{port}"),
        Some(port) => format!("{to}/{bits}:{port}"),
        None => format!("{to}/{bits}"),
    }
}

fn network_and_port(text: &str) -> Result<TransitTarget, String> {
    let (to, port) = split_port(text);
    let port = match port {
        None => None,
        Some(digits) => match digits.parse() {
            Ok(port) if port != 0 && !digits.starts_with('+') => Some(port),
            _ => return Err(format!("has the port {digits:?}; a port is a number from 1 to 65535")),
        },
    };
    Ok((network(to)?, port))
}

/// Writes a rule as [`parse`] reads it.
pub fn text(rule: &TransitRule) -> String {
    let from = match rule.from {
        TransitFrom::Network((address, bits)) => format!("{address}/{bits}"),
        // Comes from a policy, and is shown there.
        TransitFrom::Guard(guard) => format!("guard {guard}"),
    };
    format!("{from}={}", target_text((rule.to, rule.port)))
}

/// The port behind a network. An IPv6 network has brackets when a port follows.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(bracketed) = text.strip_prefix('[') {
        return match bracketed.split_once(']') {
            Some((network, "")) => (network, None),
            Some((network, rest)) => match rest.strip_prefix(':') {
                Some(port) => (network, Some(port)),
                None => (text, None),
            },
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((network, port)) if !port.contains(':') => (network, Some(port)),
        _ => (text, None),
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| format!("has {text:?} where a network belongs, such as 127.0.0.0/8 or ::1"))?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => all,
        Some(digits) => match digits.parse::<u8>() {
            Ok(bits) if bits <= all && digits.bytes().all(|byte| byte.is_ascii_digit()) => bits,
            _ => return Err(format!("has the prefix length {digits:?} in {text:?}; here it is 0 to {all}")),
        },
    };
    let host_bits = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    if host_bits.checked_shl(u32::from(bits)).unwrap_or(0) != 0 {
        return Err(format!("has bits behind the prefix of {text:?}; write the network itself, or a longer prefix"));
    }
    Ok((address, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        for (typed, want) in [
            ("10.0.0.0/8=10.1.0.0/16:4000", "10.0.0.0/8=10.1.0.0/16:4000"),
            ("127.0.0.1=127.0.0.1", "127.0.0.1/32=127.0.0.1/32"),
            ("::1=[fd00::/8]:4000", "::1/128=[fd00::/8]:4000"),
            ("::/0=fd00::/8", "::/0=fd00::/8"),
            ("::/0=[fd00::/8]", "::/0=fd00::/8"),
            ("0.0.0.0/0=0.0.0.0/0", "0.0.0.0/0=0.0.0.0/0"),
            ("0.0.0.0/0=::/0", "0.0.0.0/0=::/0"),
            ("10.0.0.0/8=fd00::1", "10.0.0.0/8=fd00::1/128"),
            ("128.0.0.0/1=255.255.255.255:65535", "128.0.0.0/1=255.255.255.255/32:65535"),
        ] {
            let rule = parse(typed).unwrap();
            assert_eq!(text(&rule), want);
            assert_eq!(parse(want).unwrap(), rule);
            let (_, to) = want.split_once('=').unwrap();
            assert_eq!(target_text(target(to).unwrap()), to);
        }
        let rule = parse("10.0.0.0/8=10.1.0.0/16:4000").unwrap();
        assert_eq!(rule.from, TransitFrom::Network(("10.0.0.0".parse().unwrap(), 8)));
        assert_eq!((rule.to, rule.port), (("10.1.0.0".parse().unwrap(), 16), Some(4000)));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for typed in [
            "",
            "=",
            "10.0.0.0/8",
            "10.0.0.0/8=",
            "=10.0.0.0/8",
            "10.0.0.0/33=10.0.0.0/8",
            "10.0.0.0/8=10.0.0.0/-1",
            "10.0.0.0/8=10.0.0.0/+8",
            "::1/129=::1",
            "10.0.0.1/8=10.0.0.0/8",
            "10.0.0.0/8=10.0.0.0/8:0",
            "10.0.0.0/8=10.0.0.0/8:65536",
            "10.0.0.0/8=10.0.0.0/8:http",
            "10.0.0.0/8=10.0.0.0/8:+80",
            "10.0.0.0/8=[::1:80",
            "10.0.0.0/8=[::1]80",
            "10.0.0.0/8=localhost:80",
            "a=b",
            "10.0.0.0/8=10.0.0.0/8=10.0.0.0/8",
        ] {
            assert!(matches!(parse(typed), Err(Error::BadArgument { .. })), "{typed:?} was taken");
        }
    }
}

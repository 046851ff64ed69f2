//! Records as bytes: little-endian, lengths before contents, numbers checked before they become enums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest byte string in a record: a 16 MiB frame and its head.
pub const BYTES_MAX: usize = 16 * 1024 * 1024 + 4096;

/// Most elements of a list in a record.
pub const LIST_MAX: usize = 4096;

/// A record that does not say what it should. Both sides treat it as a broken peer and end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends inside a field.
    #[error("the record ends inside a field")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// A length or count is above its limit.
    #[error("a length or count is above its limit")]
    TooLong,
    /// No record or enum has this number.
    #[error("no {what} has the number {number}")]
    Unknown {
        /// What was being decoded.
        what: &'static str,
        /// The number met.
        number: u64,
    },
    /// A text field is not UTF-8.
    #[error("a text field is not UTF-8")]
    NotText,
}

/// A value that can be a field of a record.
pub trait Field: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the value off the front of `input`.
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

fn take_bytes<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(count).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(taken)
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Field for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                let bytes = take_bytes(input, size_of::<$t>())?;
                Ok(<$t>::from_le_bytes(bytes.try_into().expect("length was taken")))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i32);

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Unknown { what: "truth value", number: other.into() }),
        }
    }
}

/// A byte string: `u32` length, then the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(bytes)
    }
}

impl Field for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        debug_assert!(self.0.len() <= BYTES_MAX);
        (self.0.len() as u32).put(out);
        out.extend_from_slice(&self.0);
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = u32::take(input)? as usize;
        if length > BYTES_MAX {
            return Err(DecodeError::TooLong);
        }
        Ok(Bytes(take_bytes(input, length)?.to_vec()))
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        String::from_utf8(Bytes::take(input)?.0).map_err(|_| DecodeError::NotText)
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        if bool::take(input)? { T::take(input).map(Some) } else { Ok(None) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        debug_assert!(self.len() <= LIST_MAX);
        (self.len() as u32).put(out);
        for value in self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let count = u32::take(input)? as usize;
        if count > LIST_MAX {
            return Err(DecodeError::TooLong);
        }
        (0..count).map(|_| T::take(input)).collect()
    }
}

impl Field for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            4 => {
                let octets: [u8; 4] = take_bytes(input, 4)?.try_into().expect("length was taken");
                Ok(Ipv4Addr::from(octets).into())
            }
            6 => {
                let octets: [u8; 16] = take_bytes(input, 16)?.try_into().expect("length was taken");
                Ok(Ipv6Addr::from(octets).into())
            }
            other => Err(DecodeError::Unknown { what: "address family", number: other.into() }),
        }
    }
}

impl Field for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.ip().put(out);
        self.port().put(out);
        if let SocketAddr::V6(v6) = self {
            v6.scope_id().put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let ip = IpAddr::take(input)?;
        let port = u16::take(input)?;
        Ok(match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => std::net::SocketAddrV6::new(ip, port, 0, u32::take(input)?).into(),
        })
    }
}

/// Defines an enum whose variants are plain numbers on the wire, with a stable text name each.
#[macro_export]
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident $what:literal { $($(#[$vmeta:meta])* $number:literal $variant:ident $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $number,)* }

        impl $name {
            /// Every variant, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The variant with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The stable name, as metrics and JSON show it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl $crate::record::Field for $name {
            fn put(&self, out: &mut Vec<u8>) { out.push(*self as u8); }
            fn take(input: &mut &[u8]) -> Result<Self, $crate::record::DecodeError> {
                let number = <u8 as $crate::record::Field>::take(input)?;
                Self::from_number(number)
                    .ok_or($crate::record::DecodeError::Unknown { what: $what, number: number.into() })
            }
        }
    };
}

/// Defines an enum of records: a number (`u16`), then the fields in order.
#[macro_export]
macro_rules! records {
    ($(#[$meta:meta])* $name:ident $what:literal { $($(#[$vmeta:meta])* $number:literal $variant:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty,)* },)* }) => {
        $(#[$meta])*
        #[derive(Debug, PartialEq)]
        pub enum $name { $($(#[$vmeta])* $variant { $($(#[$fmeta])* $field: $type,)* },)* }

        impl $name {
            /// The record as bytes.
            pub fn to_bytes(&self) -> Vec<u8> {
                #[allow(unused_imports)]
                use $crate::record::Field;
                // No record with a key grows beyond this, so that no copy of one is left behind on the heap.
                let mut out = Vec::with_capacity(2560);
                match self {
                    $(Self::$variant { $($field,)* } => {
                        ($number as u16).put(&mut out);
                        $($field.put(&mut out);)*
                    })*
                }
                out
            }

            /// Reads one record; the bytes must hold it exactly.
            pub fn from_bytes(mut input: &[u8]) -> Result<Self, $crate::record::DecodeError> {
                #[allow(unused_imports)]
                use $crate::record::{DecodeError, Field};
                let input = &mut input;
                let number = u16::take(input)?;
                let record = match number {
                    $($number => Self::$variant { $($field: <$type as Field>::take(input)?,)* },)*
                    _ => return Err(DecodeError::Unknown { what: $what, number: number.into() }),
                };
                if input.is_empty() { Ok(record) } else { Err(DecodeError::Trailing) }
            }
        }
    };
}

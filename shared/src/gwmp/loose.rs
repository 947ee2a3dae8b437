//! JSON values as forwarders write them: a field that only describes must never cost the frame it describes.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Accepts base64 with or without padding; writes it padded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Most elements kept of a list of numbers; no concentrator has more boards or antennas.
const MAX_LIST: usize = 16;

/// Any JSON value; what has no use here (objects) reads as [`Loose::Nothing`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Loose<'a> {
    #[default]
    Nothing,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<f64>),
}

impl Loose<'_> {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
    /// A finite number, also when written as text; of a list the first.
    pub(super) fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Integer(n) => Some(*n as f64),
            Self::Number(n) => Some(*n),
            Self::Text(text) => text.trim().parse().ok(),
            Self::List(list) => list.first().copied(),
            Self::Bool(_) | Self::Nothing => None,
        };
        number.filter(|n: &f64| n.is_finite())
    }
    /// The nearest integer; what does not fit becomes the limit.
    fn integer(&self) -> Option<i64> {
        if let Self::Integer(n) = self {
            return Some(*n);
        }
        self.number().map(|n| (if n < 0.0 { n - 0.5 } else { n + 0.5 }) as i64)
    }
    pub(super) fn i32(&self) -> Option<i32> {
        self.integer().map(|n| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }
    pub(super) fn u32(&self) -> Option<u32> {
        self.integer().map(|n| n.clamp(0, u32::MAX.into()) as u32)
    }
    pub(super) fn u64(&self) -> Option<u64> {
        self.integer().map(|n| n.max(0) as u64)
    }
    pub(super) fn i64(&self) -> Option<i64> {
        self.integer()
    }
    /// A counter of 32 bits. Of a wider one, or one printed as signed, the low 32 bits are the concentrator's.
    pub(super) fn counter(&self) -> Option<u32> {
        self.integer().map(|n| n as u32)
    }
    pub(super) fn f32(&self) -> Option<f32> {
        self.number().map(|n| n as f32).filter(|n| n.is_finite())
    }
    pub(super) fn f64(&self) -> Option<f64> {
        self.number()
    }
    /// Hz, from MHz: a positive frequency below 4.29 GHz.
    pub(super) fn hertz(&self) -> Option<u32> {
        let hertz = self.number()? * 1e6 + 0.5;
        (1.0..=f64::from(u32::MAX)).contains(&hertz).then_some(hertz as u32)
    }
    pub(super) fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(yes) => Some(*yes),
            Self::Text(text) => text.parse().ok(),
            Self::Integer(n) => Some(*n != 0),
            Self::Number(n) => Some(*n != 0.0),
            Self::List(_) | Self::Nothing => None,
        }
    }
    pub(super) fn str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
    /// Text of at most `max` bytes; a longer one is nobody's.
    pub(super) fn text(&self, max: usize) -> Option<String> {
        self.str().filter(|text| text.len() <= max && !text.is_empty()).map(String::from)
    }
    /// A list of numbers; a single number is a list of one.
    pub(super) fn list(&self) -> Vec<u32> {
        match self {
            Self::List(list) => list.iter().filter_map(|n| Loose::Number(*n).u32()).collect(),
            _ => self.u32().into_iter().collect(),
        }
    }
}

/// The bytes of base64 text, of either alphabet, padded or not.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.contains(['-', '_']) {
        return BASE64.decode(text.replace('-', "+").replace('_', "/")).ok();
    }
    BASE64.decode(text).ok()
}

/// Base64 text, padded.
pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// MHz as a number whose shortest decimal form has no more than six places.
pub(super) fn megahertz(hertz: u32) -> f64 {
    f64::from(hertz) / 1e6
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Loose<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Loose::Nothing)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
                Ok(Loose::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
                Ok(Loose::Integer(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(v).map_or(Loose::Number(v as f64), Loose::Integer))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
                Ok(Loose::Number(v))
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Owned(v.into())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element::<Loose<'de>>()? {
                    list.extend(item.number().filter(|_| list.len() < MAX_LIST));
                }
                Ok(Loose::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Nothing)
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

//! Attributes that not every header brings through, kept by ingest beside themselves.
//!
//! Knative's data plane writes values into headers as they are, without the percent signs that
//! CloudEvents asks for, and what is not Latin-1 as question marks. So two ids may become one on
//! the way to process. Whoever reads such an event takes what was kept.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::syntax::is_visible;

/// The extension that holds them: all attributes, as base64 of a JSON object of texts.
pub(crate) const ORIGINAL: &str = "originalattributes";

/// Returns whether every header brings a value through as it is, whoever writes it.
pub(crate) fn is_raw(text: &str) -> bool {
    let is_raw = |byte| is_visible(byte) && byte != b'%' && byte != b'"';
    text.bytes().all(is_raw) && text.trim_matches(' ').len() == text.len()
}

/// Returns attributes as the value of [`ORIGINAL`].
pub(crate) fn seal<S: Serialize>(attributes: &BTreeMap<S, impl Serialize>) -> String {
    let json = serde_json::to_vec(attributes).expect("text has no reason to fail");
    URL_SAFE_NO_PAD.encode(json)
}

/// Returns the attributes that [`seal`] made a value of.
pub(crate) fn unseal(sealed: &str) -> Option<BTreeMap<String, String>> {
    let json = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    serde_json::from_slice(&json).ok()
}

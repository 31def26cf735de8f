//! A question about a meter's usage, and one row of the answer.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    decimal::{Decimal, Total},
    window::{Window, WindowSize},
};

/// What is asked of one meter. Its caller has checked it against the meter.
#[derive(Clone, Debug)]
pub struct MeterQuery {
    /// Events before this time do not count.
    pub from: Option<Timestamp>,
    /// Events at or after this time do not count.
    pub to: Option<Timestamp>,
    /// One row a window; `None` for one row over the whole time.
    pub window_size: Option<WindowSize>,
    /// The zone in which windows are aligned.
    pub zone: TimeZone,
    /// Only these subjects count; empty for all.
    pub subjects: Vec<String>,
    /// Whether rows are told apart by subject.
    pub by_subject: bool,
    /// The dimensions, beside the subject, by which rows are told apart.
    pub group_by: Vec<String>,
    /// Only events with one of these values count, for each dimension named.
    pub filters: BTreeMap<String, Vec<String>>,
}

impl Default for MeterQuery {
    /// Returns the question for all usage of all time, in one row.
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            window_size: None,
            zone: TimeZone::UTC,
            subjects: Vec::new(),
            by_subject: false,
            group_by: Vec::new(),
            filters: BTreeMap::new(),
        }
    }
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRow {
    /// The window that the row is for.
    pub window: Window,
    /// The value; p50 for QUANTILES.
    pub value: Total,
    /// p50, p90, p95 and p99, of a QUANTILES meter.
    pub quantiles: Option<[Decimal; 4]>,
    /// The subject, when asked by subject.
    pub subject: Option<String>,
    /// The values of `group_by`, in its order.
    pub groups: Vec<String>,
}

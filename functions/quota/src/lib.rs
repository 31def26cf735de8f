//! `quota`: prepaid credits of each subject.

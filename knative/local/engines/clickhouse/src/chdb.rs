//! libchdb behind a safe API. All unsafe code of the project is in this file.
//!
//! The rules of the library, kept here so that nobody above can break them:
//! - a connection runs one statement at a time, on any thread: [`Connection`]
//!   is `Send`, not `Sync`, and a running [`Select`] or [`Insert`] borrows it;
//! - it must not be used again after a query failed in the middle of its
//!   output (the next result would begin with leftover bytes), so callers take
//!   a fresh one for each request, which costs 0.2 ms;
//! - closing the last connection stops the engine, so the engine keeps one idle.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use libloading::Library;

/// What the engine says of a statement that failed: `Code: N. DB::Exception: ...`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

type RawConnection = *mut c_void;
type RawResult = *mut c_void;
type RawInsert = *mut c_void;
type Texts = *const *const c_char;
/// A statement and its format as pointers and lengths, then its parameters.
type Start = unsafe extern "C" fn(
    RawConnection,
    *const u8,
    usize,
    *const u8,
    usize,
    *const *const u8,
    *const usize,
    *const *const u8,
    *const usize,
    usize,
) -> *mut c_void;
/// Values for the `{name:Type}` places of a statement.
pub type Params<'a> = &'a [(String, String)];

/// Declares the functions used and how each is looked up, side by side.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)*
            chdb_query_with_params_n: Start,
            chdb_stream_query_with_params_n: Start,
            chdb_stream_insert_with_params_n: Start,
            /// Never unloaded: the engine's threads may outlive every handle to it.
            _library: ManuallyDrop<Library>,
        }

        impl Functions {
            fn load(path: &Path) -> Result<Self, libloading::Error> {
                // SAFETY: libchdb's initialisers only prepare its own globals.
                let library = unsafe { Library::new(path)? };
                Ok(Self {
                    // SAFETY: each signature is that of chdb.h 26.7.3.
                    $($name: unsafe { *library.get(stringify!($name))? },)*
                    // SAFETY: as above; these three share one signature.
                    chdb_query_with_params_n: unsafe { *library.get("chdb_query_with_params_n")? },
                    // SAFETY: as above.
                    chdb_stream_query_with_params_n: unsafe { *library.get("chdb_stream_query_with_params_n")? },
                    // SAFETY: as above.
                    chdb_stream_insert_with_params_n: unsafe { *library.get("chdb_stream_insert_with_params_n")? },
                    _library: ManuallyDrop::new(library),
                })
            }
        }
    };
}

functions! {
    chdb_set_signal_handlers_enabled: fn(c_int);
    chdb_connect: fn(c_int, Texts) -> *mut RawConnection;
    chdb_close_conn: fn(*mut RawConnection);
    chdb_shutdown: fn() -> c_int;
    chdb_stream_fetch_result: fn(RawConnection, RawResult) -> RawResult;
    chdb_stream_cancel_query: fn(RawConnection, RawResult);
    chdb_destroy_query_result: fn(RawResult);
    chdb_stream_append: fn(RawInsert, *const u8, usize) -> c_int;
    chdb_stream_done: fn(RawInsert) -> RawResult;
    chdb_stream_cancel_insert: fn(RawInsert);
    chdb_stream_insert_error: fn(RawInsert) -> *const c_char;
    chdb_destroy_insert_stream: fn(RawInsert);
    chdb_classify_query_n: fn(RawConnection, *const u8, usize, *const u8, usize, *mut RawAnalysis) -> c_int;
    chdb_result_buffer: fn(RawResult) -> *const u8;
    chdb_result_length: fn(RawResult) -> usize;
    chdb_result_error: fn(RawResult) -> *const c_char;
    chdb_result_elapsed: fn(RawResult) -> f64;
    chdb_result_rows_read: fn(RawResult) -> u64;
    chdb_result_storage_rows_read: fn(RawResult) -> u64;
    chdb_result_storage_bytes_read: fn(RawResult) -> u64;
    chdb_result_rows_written: fn(RawResult) -> u64;
    chdb_result_bytes_written: fn(RawResult) -> u64;
}

/// The loaded library. Clones share it.
#[derive(Clone)]
pub struct Chdb {
    functions: Arc<Functions>,
}

impl Chdb {
    /// Loads the library from a file.
    ///
    /// # Errors
    /// The file is no loadable library, or one without a function used here.
    pub fn load(path: &Path) -> Result<Self, libloading::Error> {
        let functions = Functions::load(path)?;
        // SAFETY: called before the first connection, as chdb.h asks. Signals
        // stay ours: the library's handlers would turn SIGTERM into a crash.
        unsafe { (functions.chdb_set_signal_handlers_enabled)(0) };
        Ok(Self {
            functions: Arc::new(functions),
        })
    }

    /// Opens a connection; the first one starts the engine. `None` if it refuses.
    pub fn connect(&self, arguments: &[CString]) -> Option<Connection> {
        let pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `count` pointers to C strings that outlive the call.
        let raw = NonNull::new(unsafe { (self.functions.chdb_connect)(count, pointers.as_ptr()) })?;
        Some(Connection {
            functions: Arc::clone(&self.functions),
            raw,
        })
    }

    /// Stops what can be stopped of the engine's threads, for the end of the
    /// process. Its answer is left out: 26.7.3 says no even when it was idle.
    pub fn shut_down(&self) {
        // SAFETY: has no precondition; with a connection open it does nothing.
        unsafe { (self.functions.chdb_shutdown)() };
    }
}

/// What a statement would do, as the engine's own parser sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Analysis {
    /// How many statements the text holds; 0 if it does not parse.
    pub statements: u32,
    /// Whether it leaves no trace: SELECT, SHOW, DESCRIBE, EXISTS, EXPLAIN.
    pub read_only: bool,
}

#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// What a statement read and wrote.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Rows read from tables.
    pub read_rows: u64,
    /// Bytes read from tables.
    pub read_bytes: u64,
    /// Rows written, those of materialized views included.
    pub written_rows: u64,
    /// Bytes written, those of materialized views included.
    pub written_bytes: u64,
    /// Rows of the result.
    pub result_rows: u64,
    /// Time taken.
    pub elapsed_ns: u64,
}

/// One session with the engine, for one request.
pub struct Connection {
    functions: Arc<Functions>,
    raw: NonNull<RawConnection>,
}

// SAFETY: the library lets any thread use a connection, one at a time, which
// `&mut self` on every method ensures.
unsafe impl Send for Connection {}

impl Connection {
    fn raw(&self) -> RawConnection {
        // SAFETY: chdb_connect gave the pointer, and only `drop` closes it.
        unsafe { *self.raw.as_ptr() }
    }

    /// Says what a statement would do, without running it.
    pub fn classify(&mut self, sql: &[u8]) -> Analysis {
        let size = size_of::<RawAnalysis>() as u32;
        let mut raw = RawAnalysis {
            struct_size: size,
            statement_count: 0,
            flags: 0,
            query_class: 4,
        };
        let functions = &self.functions;
        // SAFETY: the text and the struct outlive the call; no target database is allowed.
        let state = unsafe {
            (functions.chdb_classify_query_n)(
                self.raw(),
                sql.as_ptr(),
                sql.len(),
                std::ptr::null(),
                0,
                &raw mut raw,
            )
        };
        Analysis {
            statements: raw.statement_count,
            read_only: state == 0 && raw.query_class == 0,
        }
    }

    /// Runs a statement to its end and holds the whole output.
    ///
    /// # Errors
    /// What the engine says if the statement fails.
    pub fn run(&mut self, sql: &[u8], format: &str, params: Params) -> Result<Answer, EngineError> {
        let raw = self.start(self.functions.chdb_query_with_params_n, sql, format, params);
        Answer::new(&self.functions, raw)
    }

    /// Starts a SELECT whose output is fetched piece by piece. Other statements fail.
    ///
    /// # Errors
    /// What the engine says if the statement cannot start.
    pub fn select(
        &mut self,
        sql: &[u8],
        format: &str,
        params: Params,
    ) -> Result<Select<'_>, EngineError> {
        let raw = self.start(
            self.functions.chdb_stream_query_with_params_n,
            sql,
            format,
            params,
        );
        let stream = Answer::new(&self.functions, raw)?;
        Ok(Select {
            connection: self,
            stream,
            ended: false,
        })
    }

    /// Starts an INSERT. `head` ends before FORMAT or VALUES; the data follows by
    /// [`Insert::append`], never inline after the statement, where it breaks.
    ///
    /// # Errors
    /// What the engine says if the statement cannot start.
    pub fn insert(
        &mut self,
        head: &[u8],
        format: &str,
        params: Params,
    ) -> Result<Insert<'_>, EngineError> {
        let raw = self.start(
            self.functions.chdb_stream_insert_with_params_n,
            head,
            format,
            params,
        );
        let insert = Insert {
            connection: self,
            raw,
        };
        insert.error().map_or(Ok(insert), Err)
    }

    /// The three ways to start a statement differ in nothing but the function.
    fn start(&self, function: Start, sql: &[u8], format: &str, params: Params) -> *mut c_void {
        let names: Vec<_> = params.iter().map(|(name, _)| name.as_ptr()).collect();
        let name_lengths: Vec<_> = params.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<_> = params.iter().map(|(_, value)| value.as_ptr()).collect();
        let value_lengths: Vec<_> = params.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: every pointer and length names memory that outlives the call;
        // the library has taken over what it needs later when it returns.
        unsafe {
            function(
                self.raw(),
                sql.as_ptr(),
                sql.len(),
                format.as_ptr(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                params.len(),
            )
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: open until here; nothing borrows it any more.
        unsafe { (self.functions.chdb_close_conn)(self.raw.as_ptr()) };
    }
}

/// Output of the engine, left in the engine's memory until dropped.
pub struct Answer {
    functions: Arc<Functions>,
    raw: RawResult,
}

// SAFETY: a result is plain memory of its own; the library frees it on any thread.
unsafe impl Send for Answer {}

impl Answer {
    fn new(functions: &Arc<Functions>, raw: RawResult) -> Result<Self, EngineError> {
        if raw.is_null() {
            return Err(EngineError(
                "Code: 49. DB::Exception: the library gave no result. (LOGICAL_ERROR)".to_owned(),
            ));
        }
        let answer = Self {
            functions: Arc::clone(functions),
            raw,
        };
        // SAFETY: the result lives until `answer` is dropped.
        let error = unsafe { text((functions.chdb_result_error)(raw)) };
        error.map_or(Ok(answer), |error| Err(EngineError(error)))
    }

    /// The output.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the result lives as long as `self`, and its buffer never changes.
        unsafe {
            let length = (self.functions.chdb_result_length)(self.raw);
            let buffer = (self.functions.chdb_result_buffer)(self.raw);
            if length == 0 || buffer.is_null() {
                return &[];
            }
            std::slice::from_raw_parts(buffer, length)
        }
    }

    /// The output, without copying it.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// What the statement read and wrote.
    pub fn progress(&self) -> Progress {
        let functions = &self.functions;
        // SAFETY: the result lives as long as `self`.
        unsafe {
            Progress {
                read_rows: (functions.chdb_result_storage_rows_read)(self.raw),
                read_bytes: (functions.chdb_result_storage_bytes_read)(self.raw),
                written_rows: (functions.chdb_result_rows_written)(self.raw),
                written_bytes: (functions.chdb_result_bytes_written)(self.raw),
                result_rows: (functions.chdb_result_rows_read)(self.raw),
                elapsed_ns: ((functions.chdb_result_elapsed)(self.raw) * 1e9) as u64,
            }
        }
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the library gave it and nobody else frees it.
        unsafe { (self.functions.chdb_destroy_query_result)(self.raw) };
    }
}

/// A SELECT whose output is fetched piece by piece. Dropping it cancels it.
pub struct Select<'c> {
    connection: &'c mut Connection,
    stream: Answer,
    ended: bool,
}

impl Select<'_> {
    /// The next piece, or `None` at the end. Formats with a header repeat it in
    /// every piece.
    ///
    /// # Errors
    /// What the engine says if the query fails on its way.
    pub fn next_piece(&mut self) -> Result<Option<Answer>, EngineError> {
        if self.ended {
            return Ok(None);
        }
        let functions = &self.connection.functions;
        // SAFETY: both handles live; `&mut self` serialises the fetches.
        let raw =
            unsafe { (functions.chdb_stream_fetch_result)(self.connection.raw(), self.stream.raw) };
        let piece = Answer::new(functions, raw).inspect_err(|_| self.ended = true)?;
        self.ended = piece.bytes().is_empty();
        Ok((!self.ended).then_some(piece))
    }
}

impl Drop for Select<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let functions = &self.connection.functions;
            // SAFETY: both handles live; the stream is freed after this by its own drop.
            unsafe { (functions.chdb_stream_cancel_query)(self.connection.raw(), self.stream.raw) };
        }
    }
}

/// An INSERT that takes its data piece by piece. Dropping it before
/// [`Insert::finish`] cancels it.
pub struct Insert<'c> {
    connection: &'c mut Connection,
    raw: RawInsert,
}

impl Insert<'_> {
    /// Hands over one piece, cut anywhere. Blocks while the engine is behind.
    ///
    /// # Errors
    /// What the engine says if it has refused data.
    pub fn append(&mut self, data: &[u8]) -> Result<(), EngineError> {
        // SAFETY: the stream lives; the library copies the data.
        let state = unsafe {
            (self.connection.functions.chdb_stream_append)(self.raw, data.as_ptr(), data.len())
        };
        if state == 0 {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(|| {
            EngineError(
                "Code: 49. DB::Exception: the insert ended early. (LOGICAL_ERROR)".to_owned(),
            )
        }))
    }

    /// Ends the data and makes the rows visible and durable.
    ///
    /// # Errors
    /// What the engine says if it refuses the data.
    pub fn finish(self) -> Result<Progress, EngineError> {
        let functions = &self.connection.functions;
        // SAFETY: the stream lives until `self` is dropped, after this.
        let raw = unsafe { (functions.chdb_stream_done)(self.raw) };
        Answer::new(functions, raw).map(|answer| answer.progress())
    }

    fn error(&self) -> Option<EngineError> {
        // SAFETY: the stream lives as long as `self`.
        unsafe {
            text((self.connection.functions.chdb_stream_insert_error)(
                self.raw,
            ))
        }
        .map(EngineError)
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        let functions = &self.connection.functions;
        // SAFETY: the stream lives; cancelling one that is done changes nothing.
        unsafe {
            (functions.chdb_stream_cancel_insert)(self.raw);
            (functions.chdb_destroy_insert_stream)(self.raw);
        }
    }
}

/// Copies a C string; a null pointer or an empty string is none.
///
/// # Safety
/// `pointer` is null or names a C string that lives during the call.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as this function demands.
    let text = unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned();
    (!text.is_empty()).then_some(text)
}

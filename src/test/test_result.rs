//! What a test may return.

use std::fmt::Debug;

/// What a test returns: `()`, or a `Result` with an error that is shown; or it never returns, as one that panics.
///
/// This trait is sealed.
pub trait TestResult: sealed::Sealed {
    #[doc(hidden)]
    fn passed() -> Self;

    #[doc(hidden)]
    fn error(&self) -> Option<String>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for Never {}

    /// The type `!`, whose name is not stable: what a function returns that never returns.
    pub type Never = <fn() -> ! as Returns>::Type;

    pub trait Returns {
        type Type;
    }

    impl<T> Returns for fn() -> T {
        type Type = T;
    }
}

impl TestResult for sealed::Never {
    fn passed() -> Self {
        unreachable!("a closure that never returns passes only by a panic");
    }

    fn error(&self) -> Option<String> {
        None
    }
}

impl TestResult for () {
    fn passed() -> Self {}

    fn error(&self) -> Option<String> {
        None
    }
}

impl<E: Debug> TestResult for Result<(), E> {
    fn passed() -> Self {
        Ok(())
    }

    fn error(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!("{error:?}"))
    }
}

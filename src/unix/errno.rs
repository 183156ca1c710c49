//! Error numbers of the kernel.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

use nix::errno::Errno as NixErrno;

/// An error number of the kernel (errno(3)). The constants have the names and meanings of errno(3). Its `Display` is
/// like `Operation not permitted (EPERM)`.
///
/// ```
/// use stockade::Errno;
///
/// assert_eq!(Errno::new(1), Errno::EPERM);
/// assert_eq!(Errno::ENOENT.to_string(), "No such file or directory (ENOENT)");
/// assert_eq!(Errno::ENOENT.io_kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident),+ $(,)?) => {
        #[expect(missing_docs, reason = "errno(3) documents them")]
        impl Errno {
            $(pub const $name: Self = Self(libc::$name);)+
        }

        /// The constants by name.
        #[cfg(feature = "serde")]
        const NAMED: &[(&str, Errno)] = &[$((stringify!($name), Errno::$name)),+];
    };
}
errnos! {
    EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM, EACCES, EFAULT,
    ENOTBLK, EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, ENOTTY, ETXTBSY, EFBIG,
    ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE, EDOM, ERANGE, EDEADLK, ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP,
    ENOMSG, EIDRM, ECHRNG, EL2NSYNC, EL3HLT, EL3RST, ELNRNG, EUNATCH, ENOCSI, EL2HLT, EBADE, EBADR, EXFULL,
    ENOANO, EBADRQC, EBADSLT, EBFONT, ENOSTR, ENODATA, ETIME, ENOSR, ENONET, ENOPKG, EREMOTE, ENOLINK, EADV,
    ESRMNT, ECOMM, EPROTO, EMULTIHOP, EDOTDOT, EBADMSG, EOVERFLOW, ENOTUNIQ, EBADFD, EREMCHG, ELIBACC, ELIBBAD,
    ELIBSCN, ELIBMAX, ELIBEXEC, EILSEQ, ERESTART, ESTRPIPE, EUSERS, ENOTSOCK, EDESTADDRREQ, EMSGSIZE,
    EPROTOTYPE, ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EOPNOTSUPP, EPFNOSUPPORT, EAFNOSUPPORT,
    EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH, ENETRESET, ECONNABORTED, ECONNRESET, ENOBUFS, EISCONN,
    ENOTCONN, ESHUTDOWN, ETOOMANYREFS, ETIMEDOUT, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EALREADY, EINPROGRESS,
    ESTALE, EUCLEAN, ENOTNAM, ENAVAIL, EISNAM, EREMOTEIO, EDQUOT, ENOMEDIUM, EMEDIUMTYPE, ECANCELED, ENOKEY,
    EKEYEXPIRED, EKEYREVOKED, EKEYREJECTED, EOWNERDEAD, ENOTRECOVERABLE, ERFKILL, EHWPOISON
}

impl Errno {
    /// Creates an error number from its value. The value may be one that no kernel defines.
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// Returns the value, which is positive (errno(3)).
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Returns the [`io::ErrorKind`] that the standard library uses for this number.
    pub fn io_kind(self) -> io::ErrorKind {
        io::Error::from(self).kind()
    }

    /// Returns the name, such as `EPERM`, of a number that the kernel knows.
    pub(crate) fn name(self) -> Option<String> {
        match NixErrno::from_raw(self.0) {
            NixErrno::UnknownErrno => None,
            known => Some(format!("{known:?}")),
        }
    }
}

/// An answer of the kernel, as this crate gets it from others.
pub(crate) trait ToErrno {
    /// Returns the error number.
    fn to_errno(&self) -> Errno;
}

impl ToErrno for Errno {
    fn to_errno(&self) -> Errno {
        *self
    }
}

impl ToErrno for NixErrno {
    fn to_errno(&self) -> Errno {
        Errno(*self as i32)
    }
}

impl ToErrno for io::Error {
    /// `EIO` for an error that is not the kernel's.
    fn to_errno(&self) -> Errno {
        Errno(self.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl<E: ToErrno> ToErrno for &E {
    fn to_errno(&self) -> Errno {
        (*self).to_errno()
    }
}

impl Display for Errno {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", NixErrno::from_raw(self.0).desc()),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// The name, or the number if it has no known name or the format is a compact one.
#[cfg(feature = "serde")]
mod stored_errno {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    use super::{Errno, NAMED};
    use crate::unix::stored_number::{self, NamedNumber};

    #[cfg(feature = "_schema")]
    impl schemars::JsonSchema for Errno {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Errno".into()
        }

        fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({ "type": ["integer", "string"], "examples": ["EPERM"] })
        }
    }

    impl NamedNumber for Errno {
        const EXPECTED: &'static str = "the name of an error, such as \"EPERM\", or its number";
        const OUT_OF_RANGE: &'static str = "is not an error number";

        fn name(&self) -> Option<&'static str> {
            NAMED.iter().find(|(_, errno)| errno == self).map(|(name, _)| *name)
        }

        fn number(&self) -> i32 {
            self.0
        }

        fn from_number(number: i32) -> Self {
            Self(number)
        }

        fn from_name(name: &str) -> Result<Self, String> {
            let named = NAMED.iter().find(|(known, _)| *known == name);
            named.map(|(_, errno)| *errno).ok_or_else(|| format!("unknown error name {name:?}, see errno(3)"))
        }
    }

    impl Serialize for Errno {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            stored_number::serialize(self, serializer)
        }
    }

    impl<'de> Deserialize<'de> for Errno {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            stored_number::deserialize(deserializer)
        }
    }
}

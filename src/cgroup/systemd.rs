//! A delegated systemd scope for the caller ([`CgroupParent::SystemdScope`](super::CgroupParent::SystemdScope)).

use crate::error::Result;

#[cfg(not(feature = "systemd"))]
pub(super) fn enter_scope() -> Result<()> {
    Err(crate::error::Error::invalid(
        "CgroupParent::SystemdScope needs the feature `systemd` of stockade, which this build does not have",
        "enable the feature, or use CgroupParent::Auto and start the caller with systemd-run --user --scope -p Delegate=yes",
    ))
}

/// Moves the caller to a scope of its own, once in its life. Other threads that call this in the meantime wait.
#[cfg(feature = "systemd")]
pub(super) fn enter_scope() -> Result<()> {
    use std::sync::Mutex;

    use crate::locks::lock;

    static ENTERED: Mutex<bool> = Mutex::new(false);
    let mut entered = lock(&ENTERED);
    if !*entered {
        bus::enter()?;
        *entered = true;
    }
    Ok(())
}

#[cfg(feature = "systemd")]
mod bus {
    use std::fs;
    use std::io;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use nix::unistd::geteuid;
    use zbus::Address;
    use zbus::address::Transport;
    use zbus::blocking::connection::Builder;
    use zbus::blocking::{Connection, Proxy};
    use zbus::zvariant::{OwnedObjectPath, Value};

    use crate::cgroup::{owner, unit};
    use crate::environment;
    use crate::error::{Error, Result, SystemdFailure};
    use crate::unix::Errno;

    /// The timeout for all of it: the default of sd_bus_call(3).
    const TIMEOUT: Duration = Duration::from_secs(25);

    const SERVICE: &str = "org.freedesktop.systemd1";

    /// Moves the caller to a scope.
    pub fn enter() -> Result<()> {
        let request = ScopeRequest::new()?;
        // True after an earlier call that timed out.
        if request.is_in()? {
            return Ok(());
        }
        // A bus may accept a message and never answer. The thread is then abandoned.
        let (answer, answered) = channel();
        let cloned = request.clone();
        let ask = move || {
            let _ = answer.send(cloned.send());
        };
        thread::Builder::new()
            .name("stockade-systemd".into())
            .spawn(ask)
            .map_err(Error::io("start a thread for the D-Bus connection"))?;
        match answered.recv_timeout(TIMEOUT) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(request.timed_out()),
        }
        if request.is_in()? { Ok(()) } else { Err(request.elsewhere()) }
    }

    /// A request for a scope.
    #[derive(Clone)]
    struct ScopeRequest {
        of_system: bool,
        /// The address of the bus.
        address: String,
        unit: String,
    }

    impl ScopeRequest {
        fn new() -> Result<Self> {
            let of_system = geteuid().is_root();
            Ok(Self {
                of_system,
                address: address(of_system),
                unit: format!("stockade-{}.scope", owner::process_name()),
            })
        }

        /// Returns whether the caller is in the scope.
        fn is_in(&self) -> Result<bool> {
            let own = fs::read_to_string("/proc/self/cgroup").map_err(Error::io("read /proc/self/cgroup"))?;
            Ok(own.split(['/', '\n']).any(|part| part == self.unit))
        }

        fn send(&self) -> Result<()> {
            let address = self.address.parse().map_err(|error| self.not_connected(&error))?;
            let connection = self.connect(address).map_err(|error| self.not_connected(&error))?;
            let start = || {
                let path = "/org/freedesktop/systemd1";
                let manager = Proxy::new(&connection, SERVICE, path, "org.freedesktop.systemd1.Manager")?;
                // Otherwise the manager sends no signals.
                manager.call::<_, _, ()>("Subscribe", &())?;
                let removed_jobs = manager.receive_signal_with_args("JobRemoved", &[(2, &self.unit)])?;
                let properties = [
                    ("Description", Value::from(format!("sandboxes of process {}", std::process::id()))),
                    // 0 is the sender, independent of PID namespaces.
                    ("PIDs", Value::from([0_u32].as_slice())),
                    ("Delegate", Value::from(true)),
                    ("CollectMode", Value::from("inactive-or-failed")),
                ];
                let others: [(&str, &[(&str, Value<'_>)]); 0] = [];
                let arguments = (&self.unit, "fail", properties.as_slice(), others.as_slice());
                let job: OwnedObjectPath = manager.call("StartTransientUnit", &arguments)?;
                for signal in removed_jobs {
                    let (_, of, _, result): (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
                    if of == job {
                        return Ok(result);
                    }
                }
                Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
            };
            match start().map_err(|error| self.not_started(error))?.as_str() {
                "done" => Ok(()),
                result => Err(self.job_failed(result)),
            }
        }
    }

    impl ScopeRequest {
        /// Connects to a UNIX socket. Other transports start programs (`unixexec:`, `ibus:`) or connect to another
        /// machine.
        fn connect(&self, address: Address) -> zbus::Result<Connection> {
            match address.transport() {
                Transport::Unix(_) => Builder::address(address)?.method_timeout(TIMEOUT).build(),
                _ => Err(zbus::Error::Address("only `unix:` addresses are supported".into())),
            }
        }
    }

    /// Returns the address of the bus of the manager.
    fn address(of_system: bool) -> String {
        let variable = |name| environment::var(name)?.into_string().ok();
        if of_system {
            return variable("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into());
        }
        variable("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let directory = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", geteuid()));
            format!("unix:path={directory}/bus")
        })
    }

    /// Errors.
    impl ScopeRequest {
        fn error(&self, failure: SystemdFailure, answer: String, remedy: String) -> Error {
            let step = match self.of_system {
                true => "ask the system's systemd for the scope",
                false => "ask the user's systemd for the scope",
            };
            Error::systemd(format!("{step} {}", self.unit), failure, answer, remedy)
        }

        fn not_connected(&self, error: &zbus::Error) -> Error {
            use zbus::Error::{Connection, InputOutput};

            let answer = match error {
                InputOutput(error) | Connection(error, _) => message(error),
                other => other.to_string(),
            };
            let (step, needs) = match self.of_system {
                true => ("connect to the system's bus", "start it (package dbus)".to_owned()),
                false => {
                    let linger = format!(
                        "start a user manager (log in, or run `loginctl enable-linger {}`), and set DBUS_SESSION_BUS_ADDRESS or \
                         XDG_RUNTIME_DIR if its bus is elsewhere",
                        geteuid()
                    );
                    ("connect to the user's bus", linger)
                }
            };
            let (failure, remedy) = if unit::has_systemd() {
                (SystemdFailure::NoBus, needs)
            } else {
                let others = "systemd does not run this machine: use CgroupParent::Auto, or CgroupParent::Path with a cgroup in \
                              which the caller may create others";
                (SystemdFailure::NoManager, others.into())
            };
            Error::systemd(format!("{step} {}", self.address), failure, answer, remedy)
        }

        fn not_started(&self, error: zbus::Error) -> Error {
            let (name, words) = match error {
                zbus::Error::MethodError(name, words, _) => (name.to_string(), words.unwrap_or_default()),
                zbus::Error::FDO(error) => {
                    use zbus::DBusError;
                    (error.name().to_string(), error.description().unwrap_or_default().to_owned())
                }
                zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => return self.timed_out(),
                zbus::Error::InputOutput(error) => {
                    return self.error(SystemdFailure::Failed, message(&error), self.journal());
                }
                other => return self.error(SystemdFailure::Failed, other.to_string(), self.journal()),
            };
            let (failure, remedy) = self.refusal(&name);
            self.error(failure, format!("{words} ({name})"), remedy)
        }

        /// Returns the meaning of a D-Bus error, by its name.
        fn refusal(&self, name: &str) -> (SystemdFailure, String) {
            let kind = name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or(name);
            match kind {
                "ServiceUnknown" | "NameHasNoOwner" => self.no_manager(),
                _ if kind.starts_with("Spawn.") => self.no_manager(),
                "AccessDenied" | "AuthFailed" | "InteractiveAuthorizationRequired" => (
                    SystemdFailure::Refused,
                    "allow it in the policy of the bus and in polkit (org.freedesktop.systemd1.manage-units), or choose another \
                     parent (CgroupParent::Path)"
                        .into(),
                ),
                "NoReply" | "Timeout" | "TimedOut" => (SystemdFailure::TimedOut, self.journal()),
                _ => (SystemdFailure::Failed, self.journal()),
            }
        }

        fn no_manager(&self) -> (SystemdFailure, String) {
            let variable = if self.of_system { "DBUS_SYSTEM_BUS_ADDRESS" } else { "DBUS_SESSION_BUS_ADDRESS" };
            let remedy = format!("no systemd is on the bus {}: set {variable} to the address of its bus", self.address);
            (SystemdFailure::NoManager, remedy)
        }

        fn job_failed(&self, result: &str) -> Error {
            let mut remedy = self.journal();
            if !self.of_system {
                remedy += "; the user's systemd needs the system's bus (package dbus) to move this process";
            }
            self.error(SystemdFailure::Failed, format!("the job failed with {result:?}"), remedy)
        }

        fn elsewhere(&self) -> Error {
            let answer = "the scope was created, but does not contain the caller".to_owned();
            self.error(SystemdFailure::Failed, answer, self.journal())
        }

        fn timed_out(&self) -> Error {
            let answer = format!("no answer in {TIMEOUT:?} on {}", self.address);
            self.error(SystemdFailure::TimedOut, answer, self.journal())
        }

        /// Returns the hint to look at the logs.
        fn journal(&self) -> String {
            let user = if self.of_system { "" } else { "--user " };
            format!("see `systemctl {user}status` and `journalctl {user}-u {}`", self.unit)
        }
    }

    /// Returns the message of the kernel or of the library.
    fn message(error: &io::Error) -> String {
        match error.raw_os_error() {
            Some(errno) => Errno::new(errno).to_string(),
            None => error.to_string(),
        }
    }
}

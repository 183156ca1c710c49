//! A scope of systemd's for the host. What is made below it is made as below any other cgroup.

use crate::error::Result;

#[cfg(not(feature = "systemd"))]
pub(super) fn enter_scope() -> Result<()> {
    Err(crate::error::Error::invalid(
        "CgroupParent::SystemdScope can't be had: this build of stockade does not speak to systemd",
        "enable the feature `systemd` of stockade, or run the host in such a scope (systemd-run --user --scope -p \
         Delegate=yes) with CgroupParent::Auto",
    ))
}

/// Has the host's process moved to a scope of its own, unless it has been. Threads that call it meanwhile wait for it.
#[cfg(feature = "systemd")]
pub(super) fn enter_scope() -> Result<()> {
    use std::sync::{Mutex, PoisonError};

    static ENTERED: Mutex<bool> = Mutex::new(false);
    let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
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
    use crate::error::{Errno, Error, Result, SystemdFailure};

    /// How long all of it may take: what sd-bus gives a call (sd_bus_call(3)).
    const TIMEOUT: Duration = Duration::from_secs(25);

    const SERVICE: &str = "org.freedesktop.systemd1";

    /// Moves this process to a scope.
    pub fn enter() -> Result<()> {
        let request = Request::new()?;
        // After a try that was too slow.
        if request.is_in()? {
            return Ok(());
        }
        // A bus may take what it is sent and never answer. Nobody waits for the thread then.
        let (answer, answered) = channel();
        let asked = request.clone();
        let ask = move || {
            let _ = answer.send(asked.ask());
        };
        thread::Builder::new()
            .name("stockade-systemd".into())
            .spawn(ask)
            .map_err(Error::host("starting a thread that speaks to systemd"))?;
        match answered.recv_timeout(TIMEOUT) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(request.timed_out()),
        }
        if request.is_in()? { Ok(()) } else { Err(request.elsewhere()) }
    }

    /// What is asked of whom.
    #[derive(Clone)]
    struct Request {
        of_system: bool,
        /// Of the bus.
        address: String,
        unit: String,
    }

    impl Request {
        fn new() -> Result<Self> {
            let of_system = geteuid().is_root();
            Ok(Self { of_system, address: address(of_system), unit: format!("stockade-{}.scope", owner::unique()) })
        }

        /// Whether this process is in the scope.
        fn is_in(&self) -> Result<bool> {
            let own = fs::read_to_string("/proc/self/cgroup").map_err(Error::host("reading /proc/self/cgroup"))?;
            Ok(own.split(['/', '\n']).any(|part| part == self.unit))
        }

        fn ask(&self) -> Result<()> {
            let address = self.address.parse().map_err(|error| self.not_connected(&error))?;
            let connection = self.connect(address).map_err(|error| self.not_connected(&error))?;
            let start = || {
                let path = "/org/freedesktop/systemd1";
                let manager = Proxy::new(&connection, SERVICE, path, "org.freedesktop.systemd1.Manager")?;
                // Without it the manager sends no signals.
                manager.call::<_, _, ()>("Subscribe", &())?;
                let ended = manager.receive_signal_with_args("JobRemoved", &[(2, &self.unit)])?;
                let properties = [
                    ("Description", Value::from(format!("sandboxes of process {}", std::process::id()))),
                    // Who sends this, as the manager sees it, from whichever pid namespace.
                    ("PIDs", Value::from([0_u32].as_slice())),
                    ("Delegate", Value::from(true)),
                    ("CollectMode", Value::from("inactive-or-failed")),
                ];
                let others: [(&str, &[(&str, Value<'_>)]); 0] = [];
                let arguments = (&self.unit, "fail", properties.as_slice(), others.as_slice());
                let job: OwnedObjectPath = manager.call("StartTransientUnit", &arguments)?;
                for signal in ended {
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

    impl Request {
        /// Connects to a UNIX socket. The other transports start programs (`unixexec:`, `ibus:`), or lead to another machine.
        fn connect(&self, address: Address) -> zbus::Result<Connection> {
            match address.transport() {
                Transport::Unix(_) => Builder::address(address)?.method_timeout(TIMEOUT).build(),
                _ => Err(zbus::Error::Address("only `unix:` addresses are connected to".into())),
            }
        }
    }

    /// The address of the bus that the manager is on.
    fn address(of_system: bool) -> String {
        let said = |variable| environment::var(variable)?.into_string().ok();
        if of_system {
            return said("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into());
        }
        said("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let directory = said("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", geteuid()));
            format!("unix:path={directory}/bus")
        })
    }

    /// What went wrong.
    impl Request {
        fn error(&self, failure: SystemdFailure, answer: String, remedy: String) -> Error {
            let step = match self.of_system {
                true => "asking the system's systemd for the scope",
                false => "asking the user's systemd for the scope",
            };
            Error::Systemd { step, on: self.unit.clone(), failure, answer, remedy }
        }

        fn not_connected(&self, error: &zbus::Error) -> Error {
            use zbus::Error::{Connection, InputOutput};

            let answer = match error {
                InputOutput(error) | Connection(error, _) => said(error),
                other => other.to_string(),
            };
            let (step, needs) = match self.of_system {
                true => ("connecting to the system's bus", "start it (package dbus)".to_owned()),
                false => {
                    let linger = format!(
                        "log in with a user manager, or have one run always (loginctl enable-linger {}); its bus is \
                         where DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR says",
                        geteuid()
                    );
                    ("connecting to the user's bus", linger)
                }
            };
            let (failure, remedy) = if unit::has_systemd() {
                (SystemdFailure::NoBus, needs)
            } else {
                let others = "this machine is not run by systemd; use CgroupParent::Auto, or CgroupParent::Path with a \
                              cgroup in which this user may make others";
                (SystemdFailure::NoManager, others.into())
            };
            Error::Systemd { step, on: self.address.clone(), failure, answer, remedy }
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
                    return self.error(SystemdFailure::Failed, said(&error), self.journal());
                }
                other => return self.error(SystemdFailure::Failed, other.to_string(), self.journal()),
            };
            let (failure, remedy) = self.refusal(&name);
            self.error(failure, format!("{words} ({name})"), remedy)
        }

        /// What an error of D-Bus means, by its name.
        fn refusal(&self, name: &str) -> (SystemdFailure, String) {
            let kind = name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or(name);
            match kind {
                "ServiceUnknown" | "NameHasNoOwner" => self.no_manager(),
                _ if kind.starts_with("Spawn.") => self.no_manager(),
                "AccessDenied" | "AuthFailed" | "InteractiveAuthorizationRequired" => (
                    SystemdFailure::Refused,
                    "have the policy of the bus and polkit (org.freedesktop.systemd1.manage-units) allow it, or name \
                     another parent (CgroupParent::Path)"
                        .into(),
                ),
                "NoReply" | "Timeout" | "TimedOut" => (SystemdFailure::TimedOut, self.journal()),
                _ => (SystemdFailure::Failed, self.journal()),
            }
        }

        fn no_manager(&self) -> (SystemdFailure, String) {
            let remedy =
                format!("no systemd is on the bus {}: have the environment name one that it is on", self.address);
            (SystemdFailure::NoManager, remedy)
        }

        fn job_failed(&self, result: &str) -> Error {
            let mut remedy = self.journal();
            if !self.of_system {
                remedy += "; the user's systemd needs the system's bus (package dbus) to move this process";
            }
            self.error(SystemdFailure::Failed, format!("its job ended as {result:?}"), remedy)
        }

        fn elsewhere(&self) -> Error {
            let answer = "it was made, and this process is not in it".to_owned();
            self.error(SystemdFailure::Failed, answer, self.journal())
        }

        fn timed_out(&self) -> Error {
            let answer = format!("no answer in {TIMEOUT:?} on {}", self.address);
            self.error(SystemdFailure::TimedOut, answer, self.journal())
        }

        /// Where more is said.
        fn journal(&self) -> String {
            let user = if self.of_system { "" } else { "--user " };
            format!("`systemctl {user}status` and `journalctl {user}-u {}` say more", self.unit)
        }
    }

    /// What the kernel said, or the library.
    fn said(error: &io::Error) -> String {
        match error.raw_os_error() {
            Some(errno) => Errno(errno).to_string(),
            None => error.to_string(),
        }
    }
}

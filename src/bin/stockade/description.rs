//! What the options describe: a sandbox, and the command to run in it.

use std::time::Duration;

use stockade::config::{Config, Profile};
use stockade::test::TestBinary;
use stockade::{Command, Sandbox, Stdio};

use crate::cli::{PlanOptions, RunOptions, SandboxOptions};
use crate::failure::{CommandFailure, Result};
use crate::limit_options::OutputOptions;

/// The time that the program has to terminate after a signal, if no other is given.
const USUAL_GRACE: Duration = Duration::from_secs(2);

/// A sandbox and its command.
pub struct Description {
    config: Config,
    test: Option<TestBinary>,
}

impl Description {
    pub fn of_run(options: &RunOptions) -> Result<Self> {
        Self::of(&options.sandbox, Some(&options.output))
    }

    pub fn of_plan(options: &PlanOptions) -> Result<Self> {
        Self::of(&options.sandbox, Some(&options.output))
    }

    pub fn of(options: &SandboxOptions, output: Option<&OutputOptions>) -> Result<Self> {
        let mut given = Config::default();
        options.mounts.add_to(&mut given).map_err(CommandFailure::usage)?;
        options.command.add_to(&mut given);
        options.privileges.add_to(&mut given);
        options.limits.add_to(&mut given);
        output.iter().for_each(|output| output.add_to(&mut given));
        let file = options.config.read().map_err(CommandFailure::invalid)?;
        Self::new(file.overridden_by(given.resolve(".")))
    }

    fn new(mut config: Config) -> Result<Self> {
        let Some(program) = config.command.as_ref().and_then(|command| command.first()) else {
            return Err(CommandFailure::usage(
                "there is no program to run: add it after the options, as in -- PROGRAM [ARG]…, or the key command to the \
                 file of --config",
            ));
        };
        let is_test = config.profile == Some(Profile::Test);
        let test = if is_test { TestBinary::of_runner(program)? } else { None };
        if let Some(test) = &test {
            let run_by_cargo = test.command();
            config.command.iter_mut().flat_map(|command| command.first_mut()).for_each(|program| {
                run_by_cargo.get_program().clone_into(program);
            });
            if config.cwd.is_none() {
                config.cwd = run_by_cargo.get_current_dir().map(ToOwned::to_owned);
            }
            for (name, value) in run_by_cargo.get_envs() {
                config.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        Ok(Self { config, test })
    }

    pub fn sandbox(&self) -> Result<Sandbox> {
        let base = self.config.profile.map_or_else(Sandbox::new, Profile::sandbox);
        let base = self.test.iter().fold(base, |base, test| test.bind(base));
        self.config.apply(base).map_err(CommandFailure::invalid)
    }

    /// Returns the command, with the standard streams of this process, or pipes for output that is collected.
    pub fn command(&self, is_collected: bool) -> Result<Command> {
        let mut command = self.config.command()?;
        let is_free = |number: u32| !self.config.descriptors.contains_key(&number);
        if is_collected {
            if is_free(1) {
                command.stdout(Stdio::piped());
            }
            if is_free(2) {
                command.stderr(Stdio::piped());
            }
        }
        Ok(command)
    }

    /// Whether it is a test that cargo has started.
    pub fn is_test(&self) -> bool {
        self.test.is_some()
    }

    /// Whether the program has a terminal of its own.
    pub fn has_terminal(&self) -> bool {
        self.config.pty == Some(true)
    }

    /// Whether the output is collected, and printed when the program has terminated. All profiles limit the output.
    pub fn collects_output(&self) -> bool {
        !self.has_terminal() && (self.limits_output() || self.config.profile.is_some())
    }

    /// Whether the output is limited by more than the profile.
    pub fn limits_output(&self) -> bool {
        self.config.stdout_max.is_some() || self.config.stderr_max.is_some()
    }

    /// Whether the program is in the session of this process, so that the terminal sends its signals to both.
    pub fn shares_session(&self) -> bool {
        self.config.new_session == Some(false)
    }

    /// The time that the program has to terminate after a signal.
    pub fn grace(&self) -> Duration {
        self.config.kill_grace.unwrap_or(USUAL_GRACE)
    }
}

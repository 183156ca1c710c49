//! The page in a real browser: Debian's Chromium without a window, driven by WebDriver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Server, agent, has, within};

const SOON: Duration = Duration::from_secs(90);
const DRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";

/// A page of a browser, which is closed when this is dropped.
struct Page {
    driver: Child,
    session: String,
    _profile: TempDir,
}

/// Key of an element's ID in WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Page {
    fn open(url: &str) -> Self {
        let profile = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new(DRIVER);
        driver.arg(format!("--port={port}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.env("HOME", profile.path()).spawn().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        within(SOON, "the driver answers", || agent().get(format!("{base}/status")).call().ok());
        // Chromium's own sandbox does not work for root.
        let args =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,1400"];
        let directory = format!("--user-data-dir={}", profile.path().join("profile").display());
        let args: Vec<_> = args.into_iter().chain([directory.as_str()]).collect();
        let options = json!({"binary": CHROMIUM, "args": args});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let mut answer = agent().post(format!("{base}/session")).send_json(wanted).unwrap();
        let answer: Value = answer.body_mut().read_json().unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let page = Self { driver, session: format!("{base}/session/{id}"), _profile: profile };
        page.post("url", json!({"url": url}));
        page
    }

    fn post(&self, command: &str, body: Value) -> Value {
        let mut answer = agent().post(format!("{}/{command}", self.session)).send_json(body).unwrap();
        let answer: Value = answer.body_mut().read_json().unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    fn find(&self, selector: &str) -> String {
        let found = self.post("element", json!({"using": "css selector", "value": selector}));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    fn click(&self, selector: &str) {
        self.post(&format!("element/{}/click", self.find(selector)), json!({}));
    }

    fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.post(&format!("element/{element}/clear"), json!({}));
        self.post(&format!("element/{element}/value"), json!({"text": text}));
    }

    fn evaluate(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": format!("return {script}"), "args": []}))
    }

    /// Returns the visible text of an element.
    fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({selector:?}).innerText"));
        text.as_str().unwrap().to_owned()
    }

    /// Submits a program as a person does, and waits for the verdict.
    fn submit(&self, problem: &str, source: &str) -> String {
        within(SOON, "the problems are shown", || {
            (self.evaluate("document.querySelectorAll('#language option').length") != 0).then_some(())
        });
        self.click(&format!("#problem option[value={problem}]"));
        self.click("#language option[value=python]");
        self.fill("#source", source);
        self.click("button[type=submit]");
        within(SOON, "a verdict is shown", || {
            (self.evaluate("document.querySelector('button').disabled") == false).then_some(())
        });
        self.text("#verdict")
    }

    /// Returns the cells of the table of tests.
    fn rows(&self) -> Vec<Vec<String>> {
        let script =
            "[...document.querySelectorAll('#tests tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))";
        serde_json::from_value(self.evaluate(script)).unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = agent().delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Prints markup that a page without escaping would run.
const MARKUP: &str = "print('<img src=x onerror=\"document.title=1\"><script>document.title=2</script>\\u202e')";

#[test]
fn a_person_picks_a_problem_pastes_a_program_and_sees_the_verdict_for_each_test() {
    if !has(&[DRIVER, CHROMIUM]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[]);
    let page = Page::open(&server.url);

    assert_eq!(page.submit("sum", "import sys; print(sum(map(int, sys.stdin.read().split())))"), "Accepted");
    let rows = page.rows();
    let verdicts: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(verdicts, [("1", "Accepted"), ("2", "Accepted"), ("3", "Accepted")]);
    assert!(rows[0][2].ends_with(" s") && rows[0][4].ends_with(" MiB"), "{rows:?}");

    assert_eq!(page.submit("sum", MARKUP), "Wrong answer");
    assert_eq!(page.rows().len(), 1);
    let output = page.text("#outputs pre");
    assert!(output.contains("<img src=x onerror=\"document.title=1\"><script>"), "{output}");
    assert!(output.contains("\\u{202e}"), "{output}");
    assert_eq!(page.evaluate("document.querySelectorAll('#outputs img, #outputs script').length"), 0);
    assert_eq!(page.evaluate("document.title"), "stockade-judge");
    // The same markup is run where it is not escaped, which shows that this test would notice.
    let unescaped = "(() => { const into = document.createElement('div'); document.body.append(into); \
                     into.innerHTML = document.querySelector('#outputs pre').innerText; return into.querySelectorAll('img').length })()";
    assert_eq!(page.evaluate(unescaped), 1);

    let right = include_str!("../../../interactive/programs/right.py");
    // The editor of the page does not indent by itself, so the text arrives as it is.
    assert_eq!(page.submit("guess", right), "Accepted");
    assert!(page.text("#statement").starts_with("Guess a number"));
    assert_eq!(page.submit("divisor", "print(5)"), "Wrong answer");
    assert!(page.text("#outputs").contains("5 is not a divisor of 12"), "{}", page.text("#outputs"));

    // Each control has a label, and the verdict is announced.
    let unlabelled = "[...document.querySelectorAll('select, textarea')].filter(one => one.labels.length === 0).length";
    assert_eq!(page.evaluate(unlabelled), 0);
    assert_eq!(page.evaluate("document.querySelector('#verdict').getAttribute('aria-live')"), "polite");
    if let Some(path) = std::env::var_os("STOCKADE_SCREENSHOT") {
        let mut answer = agent().get(format!("{}/screenshot", page.session)).call().unwrap();
        let answer: Value = answer.body_mut().read_json().unwrap();
        std::fs::write(path, answer["value"].as_str().unwrap()).unwrap();
    }
}

//! A real browser, without a window: Debian's Chromium, driven over WebDriver.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use thirtyfour::{By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement};

use super::{eventually, free_address, tools::chromium};

/// What Chromium needs to run as any user, also as root in a container, and to leave the network alone.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one page. It ends when this is dropped.
pub struct Browser {
    // In this order: the browser ends by a word to its driver, then the driver, then their folder goes.
    page: WebDriver,
    _driver: Driver,
    _profile: TempDir,
}

struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already, which is all right.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Browser {
    /// A new browser that has been nowhere; none if this machine has none, which is said.
    pub async fn start() -> Option<Self> {
        let (chromium, chromedriver) = chromium()?;
        let (profile, address) = (tempfile::tempdir().unwrap(), free_address());
        let mut command = Command::new(chromedriver);
        command.arg(format!("--port={}", address.port())).args(["--allowed-ips=127.0.0.1", "--log-level=SEVERE"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = Driver(command.spawn().unwrap());
        let url = format!("http://{address}");
        eventually("chromedriver to answer", async || reqwest::get(format!("{url}/status")).await.ok()).await;
        let mut wanted = DesiredCapabilities::chrome();
        wanted.set_binary(chromium.to_str().unwrap()).unwrap();
        for argument in ARGUMENTS {
            wanted.add_arg(argument).unwrap();
        }
        wanted.add_arg(&format!("--user-data-dir={}", profile.path().display())).unwrap();
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        let page = WebDriver::builder(url, wanted).request_timeout(Duration::from_secs(60)).await.unwrap();
        Some(Self { page, _driver: driver, _profile: profile })
    }

    pub async fn goto(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// The path of the page.
    pub async fn path(&self) -> String {
        self.page.current_url().await.unwrap().path().to_owned()
    }

    /// Waits until the page has this.
    pub async fn find(&self, css: &str) -> WebElement {
        eventually(css, async || self.page.find(By::Css(css)).await.ok()).await
    }

    /// Waits until this is there and can be clicked, and clicks it. Parts of a page are made anew every few seconds, so
    /// it may go away between being found and being clicked.
    pub async fn click(&self, css: &str) {
        eventually(&format!("{css} to be clicked"), async || {
            self.page.find(By::Css(css)).await.ok()?.click().await.ok()
        })
        .await;
    }

    /// Types into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// What is to be read there now, if it is there.
    pub async fn text(&self, css: &str) -> Option<String> {
        self.page.find(By::Css(css)).await.ok()?.text().await.ok()
    }

    /// Waits until this can be read there.
    pub async fn reads(&self, css: &str, text: &str) {
        eventually(&format!("{css} to read {text:?}"), async || {
            self.text(css).await.filter(|shown| shown.contains(text))
        })
        .await;
    }

    /// The page's source as it is now.
    pub async fn source(&self) -> String {
        self.page.source().await.unwrap()
    }

    /// What the browser complained of since this was asked last.
    pub async fn complaints(&self) -> Vec<String> {
        self.page.browser_log().await.unwrap().into_iter().map(|entry| entry.message).collect()
    }
}

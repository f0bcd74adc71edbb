//! A browser for the console: it keeps cookies, fills in forms and follows redirects, without JavaScript.

use super::{DavClient, Fixture, HttpResponse};

/// A browser: it keeps its cookie, and finds what forms carry.
pub(crate) struct Browser {
    http: DavClient,
    pub(crate) agent: String,
    cookie: String,
}

impl Browser {
    pub(crate) fn new(gateway: &Fixture) -> Self {
        // The address alone matters: what goes in the authorization header means nothing here.
        let http = gateway.dav("", "");
        Self { http, agent: "Mozilla/5.0 (test)".to_owned(), cookie: String::new() }
    }

    /// Signs in; panics if that is refused.
    pub(crate) async fn sign_in_new(gateway: &Fixture, login: &str, token: &str) -> Self {
        let mut browser = Self::new(gateway);
        let answer = browser.sign_in(login, token).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        browser
    }

    pub(crate) async fn sign_in(&mut self, login: &str, token: &str) -> HttpResponse {
        let answer = self.post("/console/sign-in", &[("login", login), ("token", token)]).await;
        self.cookie = answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        self.http.send("GET", path, &[("cookie", &self.cookie), ("user-agent", &self.agent)], "").await
    }

    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        self.post_from("same-origin", path, fields).await
    }

    pub(crate) async fn post_from(&self, site: &str, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("user-agent", &self.agent),
            ("sec-fetch-site", site),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.http.send("POST", path, &headers, form_urlencode(fields)).await
    }

    /// Sends a body of some type.
    pub(crate) async fn post_as(&self, kind: &str, path: &str, body: String) -> HttpResponse {
        let headers = [("cookie", self.cookie.as_str()), ("user-agent", &self.agent), ("content-type", kind)];
        self.http.send("POST", path, &headers, body).await
    }

    /// The header fields that tell who it is, for a request by hand.
    pub(crate) fn identifying_headers(&self) -> String {
        format!("cookie: {}\r\nuser-agent: {}\r\n", self.cookie, self.agent)
    }

    /// Sends a form as its page has it: with what the page's hidden fields carry.
    pub(crate) async fn submit(&self, page: &str, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let text = self.get(page).await.text();
        let (csrf, once) = (hidden_field(&text, "csrf"), hidden_field(&text, "once"));
        let mut all = vec![("csrf", csrf.as_str()), ("once", once.as_str())];
        all.extend(fields);
        self.post(path, &all).await
    }

    pub(crate) async fn csrf_token(&self) -> String {
        hidden_field(&self.get("/console/files").await.text(), "csrf")
    }

    pub(crate) async fn upload(&self, path: &str, csrf: &str, content: &str) -> u16 {
        let headers = [("cookie", self.cookie.as_str()), ("user-agent", &self.agent), ("x-csrf-token", csrf)];
        self.http.send("PUT", path, &headers, content.to_owned()).await.status
    }

    /// Tells whether the console shows its pages instead of the sign-in form.
    pub(crate) async fn is_signed_in(&self) -> bool {
        self.get("/console/tokens").await.text().contains("Sign out")
    }

    /// Makes a token by the form, and returns its text and the page it stood on.
    pub(crate) async fn create_token(&self, fields: &[(&str, &str)]) -> (String, HttpResponse) {
        let answer = self.submit("/console/tokens/new", "/console/tokens/new", fields).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let text = answer.text();
        let at = text.find("pgt_").expect("a secret");
        (text[at..at + 51].to_owned(), answer)
    }
}

/// Writes fields as a form does.
pub(crate) fn form_urlencode(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns the value of a hidden field of a page, or an empty string.
pub(crate) fn hidden_field(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split(&start).nth(1).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}

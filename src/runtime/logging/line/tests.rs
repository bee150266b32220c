use super::*;
use std::time::Duration;

/// Texts that would break a line, a terminal or JSON.
const HOSTILE: [&str; 8] = [
    "a\n2026-01-01T00:00:00.000000Z ERROR ecs_agent: forged",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\"},\"level\":\"ERROR\\",
    "\u{202e}desrever\u{2066}\u{61c}",
    "\r\u{2028}\u{2029}\u{85}\u{9b}31m",
    "\0\u{8}\u{7f}",
    "a=b c=\"d",
    "\u{1f433} Grüße",
];

fn new(form: Form) -> Line {
    Line::new(form, UNIX_EPOCH + Duration::from_micros(1_764_331_200_000_042), Level::WARN, "ecs_agent::docker")
}

/// What every line holds. In JSON, the whole object.
fn check(line: &str, form: Form) -> serde_json::Value {
    assert!(line.len() <= MAX_LINE, "{}", line.len());
    let body = line.strip_suffix('\n').expect("a line ends with a line break");
    assert!(!body.contains(is_unsafe), "{body:?}");
    let pairs = if form == Form::Json { json_pairs(body) } else { logfmt_pairs(body) };
    let keys: std::collections::BTreeSet<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys.len(), pairs.len(), "each key once: {body}");
    let value = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap();
    assert_eq!((value("level"), value("module")), ("warn".into(), "docker".into()), "{body}");
    value("msg");
    pairs.into_iter().collect()
}

/// Every key and value, also a key that occurs twice.
fn json_pairs(body: &str) -> Vec<(String, serde_json::Value)> {
    struct Pairs(Vec<(String, serde_json::Value)>);
    impl<'de> serde::Deserialize<'de> for Pairs {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> serde::de::Visitor<'de> for All {
                type Value = Pairs;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(All)
        }
    }
    serde_json::from_str::<Pairs>(body).unwrap().0
}

/// Reads logfmt strictly: a value has quotes, or none of the characters that need them.
fn logfmt_pairs(body: &str) -> Vec<(String, serde_json::Value)> {
    let (mut rest, mut pairs) = (body, Vec::new());
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("a key without a value: {rest}"));
        assert!(!key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{key:?} in {body}");
        let (value, after) = if after.starts_with('"') {
            let mut stream = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = stream.next().unwrap().unwrap();
            (value, &after[stream.byte_offset()..])
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            assert!(is_bare(&after[..end]), "{after:?}");
            (after[..end].to_owned(), &after[end..])
        };
        pairs.push((key.to_owned(), value.into()));
        rest = if after.is_empty() { "" } else { after.strip_prefix(' ').expect("one space between fields") };
    }
    pairs
}

#[test]
fn both_formats_are_as_documented() {
    let fill = |form| {
        let mut line = new(form);
        line.message("pulling");
        line.text("image", "busybox:1");
        line.text("why", "no such host");
        line.text("empty", "");
        line.number("so_far", 7);
        line.finish()
    };
    let text = "level=warn time=2025-11-28T12:00:00Z msg=\"pulling\" image=busybox:1 why=\"no such host\" empty=\"\" \
                    so_far=7 module=docker\n";
    assert_eq!(fill(Form::Logfmt), text);
    let json = concat!(
        r#"{"level":"warn","time":"2025-11-28T12:00:00Z","msg":"pulling","image":"busybox:1","#,
        r#""why":"no such host","empty":"","so_far":7,"module":"docker"}"#,
        "\n"
    );
    assert_eq!(fill(Form::Json), json);
}

#[test]
fn hostile_texts_stay_in_their_line_and_are_kept() {
    for form in [Form::Logfmt, Form::Json] {
        for text in HOSTILE {
            let mut line = new(form);
            line.message(text);
            line.text(text, text);
            line.text("plain", text);
            let fields = check(&line.finish(), form);
            assert_eq!((&fields["msg"], &fields["plain"]), (&text.into(), &text.into()), "nothing is lost");
        }
    }
}

#[test]
fn no_key_occurs_twice() {
    for form in [Form::Logfmt, Form::Json] {
        let mut line = new(form);
        line.message("payload");
        for name in ["message", "msg", "level", "time", "module", "cut", "a b", "a_b", "", "a_b_2", "a_b"] {
            line.text(name, name);
        }
        line.number("level", 1);
        let fields = check(&line.finish(), form);
        assert_eq!(
            (&fields["msg"], &fields["msg_2"], &fields["message"]),
            (&"payload".into(), &"msg".into(), &"message".into())
        );
        assert_eq!((&fields["a_b"], &fields["a_b_2"], &fields["a_b_3"]), (&"a b".into(), &"a_b".into(), &"a_b".into()));
        assert_eq!(fields["level_3"].to_string().trim_matches('"'), "1");
    }
}

#[test]
fn a_long_field_is_cut_and_the_next_one_is_written() {
    for form in [Form::Logfmt, Form::Json] {
        for unit in ["x", "ü", "\u{1f433}", "\n", "\u{1b}", "\"", "\u{202e}"] {
            let mut line = new(form);
            line.message(unit.repeat(3 << 20));
            line.text("after", "still here");
            let line = line.finish();
            check(&line, form);
            assert!(line.len() < MAX_FIELD + RESERVE && line.contains(CUT) && line.contains("still here"), "{unit:?}");
        }
    }
}

#[test]
fn fields_beyond_the_limit_of_a_line_are_left_out() {
    for form in [Form::Logfmt, Form::Json] {
        for unit in ["\u{1b}", "x"] {
            for fill in MAX_FIELD - 40..MAX_FIELD {
                let mut line = new(form);
                line.message("m");
                for n in 0..30 {
                    line.text(&format!("{}{n}", unit.repeat(300)), unit.repeat(if n < 3 { fill } else { 40 }));
                }
                check(&line.finish(), form);
            }
        }
    }
}

#[test]
fn numbers_are_never_cut() {
    let smallest = -f64::MIN_POSITIVE;
    for form in [Form::Logfmt, Form::Json] {
        for unit in ["\u{1b}", "x"] {
            // Around the end of the line, which is about 2000 bytes behind the third text.
            for fill in (1200..2400).step_by(7) {
                let mut line = new(form);
                for n in 0..4 {
                    line.text(&format!("text{n}"), unit.repeat(if n < 3 { MAX_FIELD } else { fill }));
                }
                line.number(&unit.repeat(300), u64::MAX);
                line.bare("is_last", true);
                line.bare("smallest", smallest);
                let line = line.finish();
                check(&line, form);
                if form == Form::Json {
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                    let fields = value.as_object().unwrap();
                    let is_left_out = value["cut"] == true;
                    assert!(is_left_out || fields["smallest"] == smallest, "{line}");
                    assert!(fields.get("is_last").is_none_or(|whole| *whole == true), "{line}");
                }
            }
        }
    }
}

#[test]
fn a_value_that_cannot_be_shown_affects_no_other() {
    struct Broken;
    impl Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            Err(fmt::Error)
        }
    }
    for form in [Form::Logfmt, Form::Json] {
        let mut line = new(form);
        line.text("broken", Broken);
        line.text("after", "still here");
        let line = line.finish();
        check(&line, form);
        assert!(line.contains("half[cannot be shown]") && line.contains("still here"), "{line}");
    }
}

#[test]
fn no_value_holds_a_number_of_the_operating_system() {
    let error = std::io::Error::from_raw_os_error(2);
    for form in [Form::Logfmt, Form::Json] {
        let mut line = new(form);
        line.message(format_args!("\"a\": {error}: x"));
        line.text("error", &error);
        line.surrounding("around", &format!("{error}; {error}"));
        line.text("long", format_args!("{}{error}", "x".repeat(MAX_FIELD)));
        assert_eq!(line.example(), r#"\"a\": No such file or directory: x"#);
        let line = line.finish();
        let fields = check(&line, form);
        let found = "No such file or directory";
        assert_eq!((&fields["error"], &fields["msg"]), (&found.into(), &format!("\"a\": {found}: x").into()));
        assert!(fields["around"] == format!("{found}; {found}") && !line.contains("(os error"), "{line}");
    }
}

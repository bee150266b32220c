use super::*;
use serde_json::json;

fn reason(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn plain_documents_read_as_serde_json_reads_them() {
    for text in [
        r#"{"a": [1, -2, 0.5, true, false, null, "x", {}, []], "b": {"c": "A\n\t\"\\\/\b\f\r\u00e9\ud83d\udc33"}}"#,
        " [ 1 , 2 ] ",
        "\"\\u0000\"",
        "-0.25e-3",
        "18446744073709551615",
        "-9223372036854775808",
        r#"{"a": 1, "a": 2}"#,
    ] {
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn half_a_surrogate_pair_is_a_replacement_character() {
    for (text, wanted) in [
        (r#""cut \ud83d""#, "cut \u{fffd}"),
        (r#""\udc33\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\ud83d\udc33""#, "\u{fffd}\u{1f433}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83dx""#, "\u{fffd}x"),
    ] {
        assert_eq!(parse(text).unwrap(), json!(wanted), "{text}");
    }
}

#[test]
fn a_number_has_many_forms() {
    let integers = [
        ("10.0", 10),
        ("1e3", 1000),
        ("1.5E1", 15),
        ("70e-1", 7),
        ("-0", 0),
        ("-0.0", 0),
        ("0e999999999999999999999", 0),
        ("-1.0e2", -100),
    ];
    for (text, wanted) in integers {
        assert_eq!(parse(text).unwrap().as_i64(), Some(wanted), "{text}");
    }
    assert_eq!(parse("9007199254740993.0").unwrap().as_u64(), Some(9_007_199_254_740_993));
    assert_eq!(parse("1e999").unwrap().as_f64(), Some(f64::MAX));
    assert_eq!(parse("-1e999").unwrap().as_f64(), Some(f64::MIN));
    for text in ["1.5", "1e-1", "18446744073709551616", "-9223372036854775809", "1e20", "1e999999999999999999999"] {
        let value = parse(text).unwrap();
        assert!(value.is_f64() && value.as_i64().is_none() && value.as_u64().is_none(), "{text}");
    }
    for text in ["01", "+1", ".5", "1.", "1e", "1e+", "-", "NaN", "1x", "0x1"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn nesting_costs_no_stack_and_has_the_bound_of_go() {
    for depth in [1, 127, 128, 129, MAX_DEPTH] {
        assert!(parse(&("[".repeat(depth) + &"]".repeat(depth))).is_ok(), "{depth}");
    }
    for depth in [MAX_DEPTH + 1, 1_000_000] {
        assert_eq!(reason(&("[".repeat(depth) + &"]".repeat(depth))), "it nests deeper than 10000 levels");
    }
    assert!(parse(&"[".repeat(1_000_000)).is_err());
    assert!(parse(&"{\"a\":".repeat(1_000_000)).is_err());
    let beside = format!("[{}0{}, 7]", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(parse(&beside).unwrap()[1], 7, "what stands beside it is read");
}

/// Beyond the bound of Go, only the number of brackets is kept, not one byte for each.
#[test]
fn below_the_bound_of_go_brackets_are_only_counted() {
    let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
    let beside = |text: &str| {
        let text = format!("[{text}, 7]");
        Raw::new(&text).items().unwrap().map(|item| item.map(|raw| raw.text().len())).collect::<Vec<_>>()
    };
    let depth = 2 << 20;
    assert_eq!(beside(&nested(depth, "")), [Ok(2 * depth), Ok(1)], "4 MiB of brackets are one item");
    // Brackets that do not match are found down to the bound, and not beyond it.
    for inner in ["{]", "[{}[}]", "[}", "{\"a\":[}}"] {
        assert_eq!(beside(&nested(MAX_DEPTH, inner))[1], Ok(1), "{inner}");
        assert!(beside(&nested(MAX_DEPTH - 4, inner))[0].is_err(), "{inner}");
        // The parser begins to skip some levels down.
        let deep = nested(2 * MAX_DEPTH, inner);
        assert_eq!(reason(&deep), "it nests deeper than 10000 levels", "{inner}");
    }
}

#[test]
fn the_number_of_values_is_bounded() {
    let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    assert!(parse(&list(MAX_VALUES)).is_ok());
    assert_eq!(reason(&list(MAX_VALUES + 1)), "it has more than 20000 values");
}

#[test]
fn an_error_names_the_position_and_nothing_else() {
    for (text, wanted) in [
        ("", "an early end at byte 0"),
        ("{\"a\": hunter2}", "an unexpected character at byte 6"),
        ("[1 hunter2]", "an unexpected character at byte 3"),
        ("[1,]", "an unexpected character at byte 3"),
        ("{\"hunter2\"}", "an unexpected character at byte 10"),
        ("\"hunter2\n\"", "a control character in a string at byte 8"),
        ("\"\\x\"", "an unknown escape in a string at byte 2"),
        ("\"\\u12g4\"", "an unknown escape in a string at byte 3"),
        ("\"\\u12", "an unknown escape in a string at byte 3"),
        ("1 hunter2", "something after the end at byte 2"),
        ("\"hunter2", "an early end at byte 8"),
        ("tru", "an unexpected character at byte 0"),
    ] {
        assert_eq!(reason(text), wanted);
    }
}

#[test]
fn a_malformed_item_does_not_affect_the_others() {
    let text = r#"[{"a": NaN, "b": "x"}, {"a": "\q"}, {"a": [}]}, {"a": 1}]"#;
    let items: Vec<_> = Raw::new(text).items().unwrap().collect();
    assert!(items.len() == 3 && items[2].is_err(), "brackets that do not match end it: {items:?}");
    let text = "\u{feff}[{\"a\": NaN, \"b\": \"x\"}, {\"a\": \"\\q\", \"B\": 1}, {\"a\": \"\\ud83d\", \"b\": 2, \"b\": 3, \"B\": 4}]";
    let items: Vec<Raw<'_>> = Raw::new(text).items().unwrap().collect::<Result<_, _>>().unwrap();
    let b: Vec<_> = items.iter().map(|item| item.member("b").map(|raw| raw.text())).collect();
    assert_eq!(b, [Some("\"x\""), Some("1"), Some("3")]);
    let readable: Vec<_> = items.iter().map(|item| item.parse().is_ok()).collect();
    assert_eq!(readable, [false, false, true]);
}

#[test]
fn nothing_may_follow_the_closing_bracket() {
    for text in ["[1", "[1]]", "[1] 2", "[,1]", "[1,,2]", "[1,]", "{\"a\":}", "{\"a\" 1}", "{a:1}", "{\"a\":1"] {
        let raw = Raw::new(text);
        let is_list = raw.items().is_some_and(|items| items.collect::<Result<Vec<_>, _>>().is_ok());
        let is_object = raw.members().is_some_and(|members| members.collect::<Result<Vec<_>, _>>().is_ok());
        assert!(!is_list && !is_object, "{text}");
    }
    assert!(Raw::new("7").items().is_none() && Raw::new("[]").members().is_none());
    assert_eq!(Raw::new(" [ ] ").items().unwrap().count() + Raw::new("{}").members().unwrap().count(), 0);
    assert!(Raw::new(r#"{"a": null, "A": 5}"#).member("a").is_some_and(|raw| raw.text() == "5"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\":,\\\\ud83dcé0-9eE.+ -]{0,60}") {
        // Infinite numbers are the only difference: serde_json refuses them.
        let is_read = serde_json::from_str::<Value>(&text).is_ok();
        proptest::prop_assert!(parse(&text).is_ok() || !is_read, "what serde_json reads is read");
        let raw = Raw::new(&text);
        let _members = raw.members().map(Iterator::count);
        let _items = raw.items().map(Iterator::count);
    }

    #[test]
    fn printed_json_is_read_back(depth in 0_usize..4, words in proptest::collection::vec("\\PC{0,9}", 0..5), n in proptest::num::i64::ANY) {
        let mut value = json!({"n": n, "words": words, "f": 0.25, "x": null});
        for _ in 0..depth {
            value = json!([value, {"again": value}]);
        }
        proptest::prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
    }
}

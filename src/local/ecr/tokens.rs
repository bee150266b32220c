//! The passwords of `docker login`. Invariants: a password is stored only as its SHA-256, so that whoever reads the stored form
//! cannot log in; there are at most [`MAX_TOKENS`], the oldest leave first.

use super::digest::Digest;
use super::principal::Principal;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The user name of every token, as in ECR.
pub(crate) const USER: &str = "AWS";
/// Maximum number of tokens.
pub(crate) const MAX_TOKENS: usize = 2000;

/// A user name and password that are no valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The user name is not `AWS`, or there never was such a token.
    #[error("Not Authorized")]
    Unknown,
    /// The token's time is over.
    #[error("Your authorization token has expired. Reauthenticate and try again.")]
    Expired,
}

/// A token, without its password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Token {
    /// The SHA-256 of the password.
    hash: Digest,
    principal: Principal,
    /// The time in seconds since the epoch until which it is valid.
    expires_at: f64,
}

/// All tokens, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(VecDeque<Token>);

impl Tokens {
    /// Adds the token of a caller.
    pub(crate) fn add(&mut self, principal: Principal, password: &str, expires_at: f64) {
        self.restore(Token { hash: Digest::compute(password.as_bytes()), principal, expires_at });
    }

    /// Puts a token back that a stored form holds.
    pub(crate) fn restore(&mut self, token: Token) {
        if self.0.len() >= MAX_TOKENS {
            self.0.pop_front();
        }
        self.0.push_back(token);
    }

    /// All tokens, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// The caller whose token this is. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// When it is no token, or its time is over.
    pub(crate) fn principal(&self, user: &str, password: &str, now: f64) -> Result<Principal, TokenError> {
        let hash = Digest::compute(password.as_bytes());
        let found = self.0.iter().rev().find(|token| token.hash == hash).filter(|_| user == USER);
        match found {
            None => Err(TokenError::Unknown),
            Some(token) if token.expires_at <= now => Err(TokenError::Expired),
            Some(token) => Ok(token.principal.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_until_its_time_is_over() {
        let (mut tokens, alice) = (Tokens::default(), Principal::user("123456789012", "alice"));
        tokens.add(alice.clone(), "secret", 100.0);
        assert_eq!(tokens.principal("AWS", "secret", 99.0), Ok(alice));
        assert_eq!(tokens.principal("AWS", "secret", 100.0), Err(TokenError::Expired));
        assert_eq!(tokens.principal("AWS", "secre", 99.0), Err(TokenError::Unknown));
        assert_eq!(tokens.principal("aws", "secret", 99.0), Err(TokenError::Unknown));
        assert_eq!(tokens.principal("AWS", "", 99.0), Err(TokenError::Unknown));
        assert!(!serde_json::to_string(&tokens.iter().collect::<Vec<_>>()).unwrap().contains("secret"));
    }

    #[test]
    fn the_oldest_token_leaves_first() {
        let mut tokens = Tokens::default();
        for number in 0..=MAX_TOKENS {
            tokens.add(Principal::administrator("123456789012"), &number.to_string(), 9.0);
        }
        assert_eq!(tokens.iter().count(), MAX_TOKENS);
        assert_eq!(tokens.principal("AWS", "0", 1.0), Err(TokenError::Unknown));
        assert!(tokens.principal("AWS", "1", 1.0).is_ok() && tokens.principal("AWS", "2000", 1.0).is_ok());
    }
}

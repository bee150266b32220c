//! The passwords of `docker login`. Invariants: a password is stored only as its SHA-256, so that whoever reads the stored form
//! cannot log in; there are at most [`MAX_TOKENS`]: expired ones leave first, then the oldest of the same caller.

use super::digest::Digest;
use super::principal::Principal;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The user name of every token, as in ECR.
pub(crate) const USER: &str = "AWS";
/// Maximum number of tokens.
pub(crate) const MAX_TOKENS: usize = 2000;
/// How far in seconds the clock may be behind the time at which a token was made. Further, somebody has set it back.
const MAX_SKEW: f64 = 300.0;

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
    /// When it was made, in seconds since the epoch.
    made_at: f64,
    /// The time in seconds since the epoch until which it is valid.
    expires_at: f64,
}

impl Token {
    fn is_expired(&self, now: f64) -> bool {
        self.expires_at <= now || now < self.made_at - MAX_SKEW
    }
}

/// All tokens, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(VecDeque<Token>);

impl Tokens {
    /// Adds the token of a caller, valid from `now` for `ttl` seconds.
    pub(super) fn add(&mut self, principal: Principal, password: &str, now: f64, ttl: f64) {
        if self.0.len() >= MAX_TOKENS {
            self.0.retain(|token| !token.is_expired(now));
        }
        if self.0.len() >= MAX_TOKENS {
            // Nobody pushes out the tokens of others, as long as there are own ones.
            let oldest = self.0.iter().position(|token| token.principal == principal).unwrap_or(0);
            self.0.remove(oldest);
        }
        let hash = Digest::compute(password.as_bytes());
        self.0.push_back(Token { hash, principal, made_at: now, expires_at: now + ttl });
    }

    /// Puts a token back that a stored form holds. The caller checks the number.
    pub(super) fn restore(&mut self, token: Token) {
        self.0.push_back(token);
    }

    /// Removes the tokens of a user.
    pub(super) fn remove_user(&mut self, arn: &str) {
        self.0.retain(|token| !token.principal.arn().eq_ignore_ascii_case(arn));
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
            Some(token) if token.is_expired(now) => Err(TokenError::Expired),
            Some(token) => Ok(token.principal.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Principal {
        Principal::user("123456789012", "alice")
    }

    #[test]
    fn a_token_is_valid_until_its_time_is_over() {
        let mut tokens = Tokens::default();
        tokens.add(alice(), "secret", 1000.0, 100.0);
        assert_eq!(tokens.principal("AWS", "secret", 1099.0), Ok(alice()));
        assert_eq!(tokens.principal("AWS", "secret", 1100.0), Err(TokenError::Expired));
        assert_eq!(tokens.principal("AWS", "secret", 600.0), Err(TokenError::Expired), "the clock was set back");
        assert_eq!(tokens.principal("AWS", "secre", 1099.0), Err(TokenError::Unknown));
        assert_eq!(tokens.principal("aws", "secret", 1099.0), Err(TokenError::Unknown));
        assert_eq!(tokens.principal("AWS", "", 1099.0), Err(TokenError::Unknown));
        assert!(!serde_json::to_string(&tokens.iter().collect::<Vec<_>>()).unwrap().contains("secret"));
        tokens.remove_user(alice().arn());
        assert_eq!(tokens.principal("AWS", "secret", 1099.0), Err(TokenError::Unknown));
    }

    #[test]
    fn nobody_pushes_out_the_tokens_of_others() {
        let mut tokens = Tokens::default();
        tokens.add(alice(), "hers", 1.0, 9.0);
        for number in 0..MAX_TOKENS {
            tokens.add(Principal::administrator("123456789012"), &number.to_string(), 1.0, 9.0);
        }
        assert_eq!(tokens.iter().count(), MAX_TOKENS);
        assert_eq!(tokens.principal("AWS", "hers", 2.0), Ok(alice()));
        assert_eq!(tokens.principal("AWS", "0", 2.0), Err(TokenError::Unknown), "the oldest of its owner");
        assert!(tokens.principal("AWS", "1", 2.0).is_ok() && tokens.principal("AWS", "1999", 2.0).is_ok());
        tokens.add(alice(), "new", 20.0, 9.0);
        assert_eq!(tokens.iter().count(), 1, "expired ones leave first");
    }
}

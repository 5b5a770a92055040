//! Who a client is to a store with authentication: the token that its calls carry, asked for with the first one and
//! again when the store takes it no more.

use bytes::Bytes;
use prost::Message;
use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{raw, Limits};

const AUTHENTICATE: &str = "etcdserverpb.Auth/Authenticate";
/// What a store answers to calls whose token it does not take, before it does anything.
const OUTDATED: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];
const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

#[derive(Clone, PartialEq, Message)]
struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    token: String,
}

enum Token {
    Unknown,
    /// The store wants none.
    Needless,
    Held(MetadataValue<Ascii>),
}

/// A user's name and password, or a token that was made elsewhere.
pub struct Login {
    user: Option<(String, String)>,
    token: Mutex<Token>,
}

impl Login {
    /// Of a user's name and password, or of an empty name and a token.
    ///
    /// # Errors
    /// When the token can't stand in a header.
    pub fn of((name, secret): (String, String)) -> Result<Self, Status> {
        let (user, token) = if name.is_empty() {
            (None, Token::Held(value(&secret)?))
        } else {
            (Some((name, secret)), Token::Unknown)
        };
        Ok(Self {
            user,
            token: Mutex::new(token),
        })
    }

    /// Puts the token into a call's metadata; asks for one, over the call's own connection, when there is none yet.
    ///
    /// # Errors
    /// The store's, say that name or password are wrong.
    pub async fn sign(&self, channel: &Channel, metadata: &mut MetadataMap) -> Result<(), Status> {
        let mut token = self.token.lock().await;
        if let (Token::Unknown, Some((name, password))) = (&*token, &self.user) {
            *token = ask(channel.clone(), name, password).await?;
        }
        if let Token::Held(held) = &*token {
            metadata.insert("token", held.clone());
        }
        Ok(())
    }

    /// After an error: whether another try, with a new token, is worth it. Then the old one is forgotten.
    pub async fn forgets(&self, error: &Status) -> bool {
        let outdated =
            self.user.is_some() && OUTDATED.iter().any(|text| error.message().contains(text));
        if outdated {
            *self.token.lock().await = Token::Unknown;
        }
        outdated
    }
}

async fn ask(channel: Channel, name: &str, password: &str) -> Result<Token, Status> {
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let request = Request::new(Bytes::from(request.encode_to_vec()));
    match raw::unary(
        channel,
        raw::path(AUTHENTICATE)?,
        request,
        Limits::default(),
    )
    .await
    {
        Ok(answer) => {
            let answer = AuthenticateResponse::decode(answer.into_inner());
            let answer = answer.map_err(|error| Status::internal(error.to_string()))?;
            Ok(Token::Held(value(&answer.token)?))
        }
        Err(error) if error.message() == NOT_ENABLED => Ok(Token::Needless),
        // A store that knows no users at all.
        Err(error) if error.code() == Code::Unimplemented => Ok(Token::Needless),
        Err(error) => Err(error),
    }
}

fn value(token: &str) -> Result<MetadataValue<Ascii>, Status> {
    token
        .parse()
        .map_err(|_| Status::invalid_argument("The token can't be sent: it is not plain text."))
}

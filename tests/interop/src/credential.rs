//! What bare real nodes have to do with credentials: they issue them, verify them, show them in a channel, and show
//! others there later (`wire.md` D and E.7).

use crate::real::{SERVICES_IN_CHANNELS, admit};
use crate::{PATIENCE, RealNode};
use ockam::identity::models::{CredentialAndPurposeKey, CredentialSchemaIdentifier};
use ockam::identity::utils::AttributesBuilder;
use ockam::identity::{
    AttributesEntry, CredentialRetriever, CredentialRetrieverCreator, Identifier, SecureChannel,
    SecureChannelListenerOptions, SecureChannelOptions,
};
use ockam::vault::SigningKeyType;
use ockam::{Address, Result, Route, route};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Attributes that are UTF-8, by name.
pub type Texts = BTreeMap<String, String>;

/// What a real node holds to be true of somebody, because an authority says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// What is said.
    pub attributes: Texts,
    /// Until when, in seconds of Unix time.
    pub expires_at: u64,
}

impl From<&AttributesEntry> for Attested {
    fn from(entry: &AttributesEntry) -> Attested {
        let attributes = entry.attrs().iter().map(|(name, value)| (text(name), text(value))).collect();
        Attested { attributes, expires_at: entry.expires_at().expect("credentials expire").0 }
    }
}

/// The credential that a real node shows in its channels. It may be replaced while they are open.
#[derive(Clone)]
pub struct Wallet(Arc<Inside>);

struct Inside {
    credential: Mutex<CredentialAndPurposeKey>,
    /// The ends of channels that want to hear of a new one.
    ends: Mutex<Vec<Address>>,
}

impl Wallet {
    /// With this credential in it, whatever that is worth.
    #[track_caller]
    pub fn with(credential: &[u8]) -> Wallet {
        let credential = Mutex::new(decode(credential));
        Wallet(Arc::new(Inside { credential, ends: Mutex::default() }))
    }
}

// The attribute's other name is `async_trait`.
#[ockam::worker]
impl CredentialRetrieverCreator for Wallet {
    async fn create(&self, _subject: &Identifier) -> Result<Arc<dyn CredentialRetriever>> {
        Ok(Arc::new(self.clone()))
    }
}

#[ockam::worker]
impl CredentialRetriever for Wallet {
    async fn initialize(&self) -> Result<()> {
        Ok(())
    }

    async fn retrieve(&self) -> Result<CredentialAndPurposeKey> {
        Ok(self.0.credential.lock().expect("nobody died with this lock").clone())
    }

    fn subscribe(&self, address: &Address) -> Result<()> {
        self.0.ends.lock().expect("nobody died with this lock").push(address.clone());
        Ok(())
    }

    fn unsubscribe(&self, address: &Address) -> Result<()> {
        self.0.ends.lock().expect("nobody died with this lock").retain(|end| end != address);
        Ok(())
    }
}

#[track_caller]
pub(crate) fn decode(credential: &[u8]) -> CredentialAndPurposeKey {
    CredentialAndPurposeKey::decode_from_cbor_bytes(credential).expect("the CBOR of a credential")
}

pub(crate) fn encode(credential: &CredentialAndPurposeKey) -> Vec<u8> {
    credential.encode_as_cbor_bytes().expect("it is encoded into memory")
}

impl RealNode {
    /// Attests, as its identity, attributes of somebody whose history it has, from now on.
    #[track_caller]
    pub fn issue(&self, subject: &Identifier, attributes: &[(&str, &str)], lifetime: Duration) -> Vec<u8> {
        self.issue_as(&self.identifier(), subject, attributes, lifetime)
    }

    /// The same, as another identity of its.
    #[track_caller]
    pub fn issue_as(
        &self,
        issuer: &Identifier,
        subject: &Identifier,
        attributes: &[(&str, &str)],
        lifetime: Duration,
    ) -> Vec<u8> {
        let (channels, _) = self.channels();
        let schema = AttributesBuilder::with_schema(CredentialSchemaIdentifier(1));
        let attributes = attributes.iter().fold(schema, |all, (name, value)| all.with_attribute(*name, *value));
        let creation = channels.identities().credentials().credentials_creation();
        let credential = creation.issue_credential(issuer, subject, attributes.build(), lifetime);
        encode(&self.runtime.block_on(credential).expect("a credential"))
    }

    /// Gives its identity another key to issue credentials with. What the old one signed stays signed.
    pub fn renew_issuing_key(&self) {
        let (channels, issuer) = self.channels();
        let creation = channels.identities().purpose_keys().purpose_keys_creation();
        self.runtime.block_on(creation.create_credential_purpose_key(issuer)).expect("a key");
    }

    /// Gives an identity a key of P-256 to issue credentials with.
    pub fn new_p256_issuing_key(&self, issuer: &Identifier) {
        let creation = self.channels().0.identities().purpose_keys().purpose_keys_creation();
        let builder = creation.credential_purpose_key_builder(issuer);
        let builder = builder.with_random_key(SigningKeyType::ECDSASHA256CurveP256);
        self.runtime.block_on(builder.build()).expect("a key");
    }

    /// What it reads in a credential of `subject`, if it believes it: it must have the history of `authority`.
    ///
    /// # Errors
    /// What it says against it.
    pub fn verify(&self, credential: &[u8], subject: &Identifier, authority: &Identifier) -> Result<Attested, String> {
        let credential = CredentialAndPurposeKey::decode_from_cbor_bytes(credential).map_err(|e| e.to_string())?;
        let verification = self.channels().0.identities().credentials().credentials_verification();
        let authorities = [authority.clone()];
        let verified = verification.verify_credential(Some(subject), &authorities, &credential);
        let data = self.runtime.block_on(verified).map_err(|e| e.to_string())?.credential_data;
        let pairs = data.subject_attributes.map.iter();
        let attributes = pairs.map(|(name, value)| (text(name), text(value))).collect();
        Ok(Attested { attributes, expires_at: data.expires_at.0 })
    }

    /// What it holds to be true of somebody by the word of `authority`, out of a channel.
    pub fn attested(&self, subject: &Identifier, authority: &Identifier) -> Option<Attested> {
        let attributes = self.channels().0.identities().identities_attributes();
        let entry = self.runtime.block_on(attributes.get_attributes(subject, authority)).expect("a database");
        entry.as_ref().map(Attested::from)
    }

    /// Listens for channels at `address`, shows what is in the wallet, and believes what `authority` says of those
    /// who come.
    pub fn serve_channels_believing(&self, address: &str, authority: &Identifier, wallet: Option<&Wallet>) {
        let (channels, identity) = self.channels();
        let mut options = SecureChannelListenerOptions::new().as_consumer(&self.incoming);
        options = options.with_authority(authority.clone());
        if let Some(wallet) = wallet {
            options = options.with_credential_retriever_creator(Arc::new(wallet.clone())).expect("the only one");
        }
        admit(&self.context, &SERVICES_IN_CHANNELS, &options.spawner_flow_control_id());
        self.admit(address);
        channels.create_secure_channel_listener(&self.context, identity, address, options).expect("listen");
    }

    /// Opens a channel to whoever listens at the end of `route`, shows what is in the wallet, and believes what
    /// `authority` says of who answers.
    #[track_caller]
    pub fn open_showing(&self, route: Route, wallet: &Wallet, authority: Option<&Identifier>) -> SecureChannel {
        let options = SecureChannelOptions::new().with_timeout(PATIENCE);
        let options = options.with_credential_retriever_creator(Arc::new(wallet.clone())).expect("the only one");
        let options = match authority {
            Some(authority) => options.with_authority(authority.clone()),
            None => options,
        };
        admit(&self.context, &SERVICES_IN_CHANNELS, &options.producer_flow_control_id());
        let (channels, identity) = self.channels();
        let channel = channels.create_secure_channel(&self.context, identity, route, options);
        self.runtime.block_on(channel).expect("a channel")
    }

    /// Puts another credential into the wallet and shows it in the channels that this one has open (E.7).
    #[track_caller]
    pub fn show(&self, wallet: &Wallet, credential: &[u8]) {
        *wallet.0.credential.lock().expect("nobody died with this lock") = decode(credential);
        let ends = wallet.0.ends.lock().expect("nobody died with this lock").clone();
        for end in ends {
            self.runtime.block_on(self.context.send(route![end], ())).expect("tell an end of a channel");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("attributes of tests are UTF-8")
}

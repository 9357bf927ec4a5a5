//! The transform of the ciphertexts' ring, and products by it.

use super::*;
use crate::secagg::protocol::ntt::{N, canonical, forward, inverse, mul};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    transforms: Cases<TransformCase>,
    products: Cases<ProductCase>,
    sparse: Cases<SparseCase>,
}

#[derive(Deserialize)]
struct TransformCase {
    seed: Bytes<32>,
    first: Vec<u64>,
    digest: Bytes<32>,
}

#[derive(Deserialize)]
struct ProductCase {
    left: Bytes<32>,
    right: Bytes<32>,
    first: Vec<u64>,
    digest: Bytes<32>,
}

/// Exponents and coefficients.
type Terms = Vec<(usize, u64)>;

#[derive(Deserialize)]
struct SparseCase {
    left: Terms,
    right: Terms,
    product: Terms,
}

fn vectors() -> Vectors {
    vectors!("ntt.json")
}

/// Words of the seed's ChaCha20 stream, not reduced.
fn polynomial(seed: &Bytes<32>) -> Vec<u64> {
    let stream = key_stream(&seed.0, 8 * N);
    stream.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// `forward` divides by N.
fn values(coefficients: &[u64]) -> Vec<u64> {
    let mut values = coefficients.to_vec();
    forward(&mut values);
    values.into_iter().map(|value| canonical(mul(value, N as u64))).collect()
}

fn product(left: &[u64], right: &[u64]) -> Vec<u64> {
    let mut right = right.to_vec();
    forward(&mut right);
    let mut product: Vec<u64> = values(left).into_iter().zip(right).map(|(a, b)| mul(a, b)).collect();
    inverse(&mut product);
    product.into_iter().map(canonical).collect()
}

fn dense(terms: &Terms) -> Vec<u64> {
    let mut coefficients = vec![0; N];
    for (exponent, coefficient) in terms {
        coefficients[*exponent] = *coefficient;
    }
    coefficients
}

#[test]
fn values_in_their_order() {
    for case in vectors().transforms.0 {
        let coefficients = polynomial(&case.seed);
        let values = values(&coefficients);
        assert_eq!(values[..case.first.len()], case.first);
        assert_eq!(words_digest(&values), case.digest);
        let mut back = coefficients.clone();
        forward(&mut back);
        inverse(&mut back);
        assert!(back.iter().zip(&coefficients).all(|(a, b)| canonical(*a) == canonical(*b)));
    }
}

#[test]
fn negacyclic_products() {
    let Vectors { products, sparse, .. } = vectors();
    for case in &products.0 {
        let product = product(&polynomial(&case.left), &polynomial(&case.right));
        assert_eq!(product[..case.first.len()], case.first);
        assert_eq!(words_digest(&product), case.digest);
    }
    for case in &sparse.0 {
        let (left, right) = (&case.left, &case.right);
        assert_eq!(product(&dense(left), &dense(right)), dense(&case.product), "{left:?} · {right:?}");
    }
}

//! Texts on which encoders are known to part ways.

/// The built-in probe: normalisation, scripts, spaces, line ends, controls,
/// numbers, contractions, long words, code.
const SAMPLE: &[&str] = &[
    "",
    " ",
    "\n",
    "\r\n",
    "\0",
    "a\0b \0\0 c",
    "Hello, world! It's a test; they're here, I'll go, we've seen, he'd said, I'm IT'S THEY'RE I'LL",
    "don\u{2019}t won\u{2019}t \u{201c}quoted\u{201d} \u{2013} \u{2014} \u{2026}",
    "caf\u{e9} cafe\u{301} A\u{30a} \u{c5} \u{212b} \u{1e9b}\u{323} \u{fb01} \u{1100}\u{1161}\u{11a8} \u{ac01} \u{958}\u{338}",
    "e\u{301}\u{301} \u{301}start \u{327}c\u{327}\u{301}",
    "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}\u{3002}\u{6570}\u{5b57}123\u{548c}\u{6c49}\u{5b57}\u{6df7}\u{6392}\u{ff01} \u{3000}\u{5168}\u{89d2}\u{3000}",
    "\u{3053}\u{3093}\u{306b}\u{3061}\u{306f} \u{30ab}\u{3099}\u{30ac} \u{d55c}\u{ad6d}\u{c5b4} \u{fa19} \u{2f801}",
    "\u{645}\u{631}\u{62d}\u{628}\u{627} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{e2a}\u{e27}\u{e31}\u{e2a}\u{e14}\u{e35} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}",
    "\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f3fd} \u{1f1e9}\u{1f1ea} \u{2764}\u{fe0f} \u{200b}\u{200d}\u{feff}x\u{202e}y\u{ad}",
    "line one\r\nline two\r\n\r\n\r\nline three\rmac\n\n\n  indented\n\ttabbed \t \n \n x",
    "    four      many                                                  end   ",
    "\t\t\tx\t \ty\u{a0}\u{a0}z\u{2003}w\u{2028}v\u{2029}u\u{85}t\u{b}s\u{c}r",
    "0 1 12 123 1234 12345678901234567890 3.14159 1,000,000 -5 +6 1e-7 0x1F 2\u{b2} \u{bd} \u{2167} \u{664}\u{665} \u{ff11}\u{ff12}",
    "!!! ??? ... --- === *** ### $$$ %%% &&& @@@ ^^^ ~~~ ``` ''' \"\"\" /// \\\\\\ |||",
    "fn main() { let x = vec![1, 2]; println!(\"{:?}\", x); } // \u{fffd} comment\n#include <a.h>\r\n\tif (a<=b&&c!=d){}",
    "https://example.com/a/b?c=d&e=%20f#g user@example.com C:\\dir\\file.txt snake_case camelCase kebab-case",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{1}\u{2}\u{7f}\u{80}\u{9f} \u{d7ff}\u{e000}\u{f8ff}\u{ffff}\u{10ffff}",
    "<|endoftext|><|im_start|>user\nhi<|im_end|>\n <|im_end|> text<|endoftext|>text <|not_special|> <| im_end |> </s><s>[CLS][SEP][PAD]<unk>",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE x's' 'sx \u{17f}'\u{17f} '\u{130}",
    "\u{1d49c}\u{1d4b7} \u{24d0} \u{ff21}\u{ff22} \u{3392} \u{2126} \u{b5} \u{3bc} \u{df} \u{1e9e} \u{131} I\u{307} \u{1c5}",
    "a.b,c;d:e!f?g(h)i[j]k{l}m<n>o/p\\q|r`s~t@u#v$w%x^y&z*1-2_3+4=5\"6'7",
    " leading and trailing \n",
    "word\u{300}word \u{300} \u{e9}\u{300}\u{320}\u{345}",
];

/// The built-in probe and the tokenizer's own special tokens in several
/// surroundings.
pub(super) fn texts(special: &[String]) -> Vec<String> {
    let mut texts: Vec<String> = SAMPLE.iter().map(|&text| text.to_owned()).collect();
    texts.push(SAMPLE.join(" "));
    texts.push(SAMPLE.concat());
    for (position, token) in special.iter().enumerate() {
        texts.push(format!("a{token}b {token} \n{token}\n\n{token}{token} e\u{301}{token}'s {position}"));
        texts.push(token.to_lowercase());
        let cut = token.char_indices().nth(1).map_or(token.len(), |(at, _)| at);
        texts.push(format!("{} {}", &token[..cut], &token[cut..]));
    }
    texts.push(special.concat());
    texts
}

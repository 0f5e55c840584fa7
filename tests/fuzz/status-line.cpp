// SPDX-License-Identifier: Apache-2.0
// The reader of HTTP status lines. The input is what a listener answers, behind a line of bytes
// that say how it comes in pieces.
#include "fuzz.h"
#include "http.h"
#include <algorithm>
#include <string.h>

using namespace fuzz;
using kpi::StatusLine;
using Answer = StatusLine::Answer;

namespace {

constexpr size_t kLongestLine = 1024, kLongestText = 47;

struct Verdict {
    Answer answer;
    std::string text;
    size_t fed; // how much of the answer was needed
};

// ---- the reference: RFC 9112, section 4, read in one go

constexpr char kForm[] = "HTTP/1.# ###";
constexpr size_t kFormLength = sizeof kForm - 1;

bool has_form(const std::string &line)
{
    for (size_t i = 0; i < line.size() && i < kFormLength; ++i)
        if (kForm[i] == '#' ? line[i] < '0' || line[i] > '9' : line[i] != kForm[i])
            return false;
    return true;
}

Answer expected_answer(const std::string &line)
{
    if (!has_form(line))
        return Answer::Other;
    if (line.find('\n') <= kLongestLine) // npos is larger
        return Answer::Http;
    return line.size() > kLongestLine ? Answer::Endless : Answer::Unfinished;
}

std::string printable(std::string text)
{
    for (char &byte : text)
        if (byte < 0x20 || byte > 0x7e)
            byte = '?';
    return text.substr(0, kLongestText);
}

// Of what is no status line: the first line, which has at least one byte.
std::string expected_text(const std::string &line)
{
    return printable(line.substr(0, line.find_first_of("\r\n", 1)));
}

// ---- the reader, fed in pieces

Verdict read_in_pieces(const std::string &answer, const std::string &cuts)
{
    auto line = std::make_unique<StatusLine>();
    size_t fed = 0;
    for (size_t i = 0; fed < answer.size(); ++i) {
        uint8_t cut = cuts.empty() ? uint8_t{0} : static_cast<uint8_t>(cuts[i % cuts.size()]);
        size_t count = std::min(size_t{cut} + 1, answer.size() - fed);
        auto piece = std::make_unique<char[]>(count); // of its own: nothing is read around it
        memcpy(piece.get(), answer.data() + fed, count);
        Answer verdict = line->read(piece.get(), count);
        fed += count;
        if (verdict != Answer::Unfinished)
            return {verdict, line->text(), fed};
    }
    return {Answer::Unfinished, line->text(), fed};
}

Verdict read_whole(const std::string &answer)
{
    auto line = std::make_unique<StatusLine>();
    Answer verdict = line->read(answer.data(), answer.size());
    return {verdict, line->text(), answer.size()};
}

void check_text(const Verdict &verdict)
{
    EXPECT_SAYING(verdict.text.size() <= kLongestText, verdict.text.c_str());
    EXPECT_SAYING(printable(verdict.text) == verdict.text, verdict.text.c_str());
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input(data, size);
    std::string cuts = input.text(), answer = input.rest();
    Answer expected = answer.empty() ? Answer::Unfinished : expected_answer(answer);

    Verdict whole = read_whole(answer);
    EXPECT_SAYING(whole.answer == expected, whole.text.c_str());
    check_text(whole);
    if (expected == Answer::Other)
        EXPECT_SAYING(whole.text == expected_text(answer), whole.text.c_str());

    for (const std::string &way : {cuts, std::string()}) {
        Verdict pieces = read_in_pieces(answer, way);
        EXPECT_SAYING(pieces.answer == expected, pieces.text.c_str());
        check_text(pieces);
        // What is something else is not waited for: its text is what had come by then.
        if (expected == Answer::Other)
            EXPECT_SAYING(whole.text.compare(0, pieces.text.size(), pieces.text) == 0,
                          pieces.text.c_str());
        else
            EXPECT_SAYING(whole.text == pieces.text, pieces.text.c_str());
        // Told at the byte that decides.
        if (way.empty() && pieces.answer != Answer::Unfinished)
            EXPECT(pieces.fed <= kLongestLine + 1 &&
                   expected_answer(answer.substr(0, pieces.fed - 1)) == Answer::Unfinished);
    }
    return 0;
}

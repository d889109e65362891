"""The table of all chapters: a row a chapter, sortable, lower tiers unfold in place."""

import html
import re

from test_pages import record, spread

from nearfar.press import ledger, pages, results_table


def row(records):
    (found,) = re.findall(r"<tr class.*</tr>", results_table.table(records))
    return found


def test_a_chapter_has_one_row_at_its_highest_tier_and_unfolds_the_others(toybook):
    small = [record("small", seed, measurements=spread(seed)) for seed in range(3)]
    found = row([record(), *small])
    above, below = found.split("<details>")
    multiplier = pages.multiplier(small)[0][1]
    assert (
        html.escape(str(multiplier)) in above and "accuracy: ours over theirs" in above and ">small, 3 seeds" in above
    )
    assert below.startswith("<summary>smoke tier</summary>") and "seed 0" in below
    assert '<a href="../notebooks/contrastive/toy.html">A Toy</a>' in above and ">toy<" not in found
    assert 'data-sort="a toy"' in above and f'data-sort="{multiplier.value:.6g}"' in above and "<svg" in above
    assert '>1 <span class="nf-verdict nf-held">held</span><' in above


def test_the_table_says_what_it_is_and_holds_in_the_page(toybook):
    page = ledger.results_page([record()], [])
    assert page.count("<table") == page.count("</table>") == 1
    assert page.count('<th scope="col" class="nf-sortable">') == len(results_table.COLUMNS)
    assert "<details>" not in page, "there is no other tier"
    assert "<small>older than the code</small>" in page, "the toy's fingerprint is none"
    assert "older" not in ledger.results_page([record(stale=False)], [])


def test_rows_without_a_number_are_sorted_last(toybook):
    assert 'data-sort=""' in row([record(headline=None)])
    assert row([]).count('data-sort=""') == 3 and "No recorded run yet." in row([])

"""Maps as chunks of positions."""
import torch

from plugconv_mm.ops.mechanisms.token_chunks import token_chunks, token_chunks_pay


def test_chunks_cover_all_positions_in_order():
    x, y = torch.rand(3, 4, 41, 37), torch.rand(3, 5, 41, 37)
    chunks = list(token_chunks(x, y))
    assert len(chunks) > 2
    assert {part.shape[1] for part, _ in chunks} == {4} and {part.shape[1] for _, part in chunks} == {5}
    for i, whole in enumerate((x, y)):
        joined = torch.cat([chunk[i] for chunk in chunks])
        torch.testing.assert_close(joined.view(3, 41, 37, -1).permute(0, 3, 1, 2), whole, rtol=0, atol=0)


def test_chunks_of_a_channels_last_map_are_views():
    out = torch.empty(2, 4, 41, 37).contiguous(memory_format=torch.channels_last)
    for i, (part, ) in enumerate(token_chunks(out)):
        part.fill_(i)
    assert out.flatten().unique().tolist() == [0., 1.]


def test_they_pay_in_inference_alone():
    x = torch.rand(1, 4, 3, 3)
    assert not token_chunks_pay(x)
    with torch.no_grad():
        assert token_chunks_pay(x) and not token_chunks_pay(x.to('meta'))
        seen = []
        torch.jit.trace(lambda x: (seen.append(token_chunks_pay(x)), x + 1)[1], x, check_trace=False)
    assert seen == [False]

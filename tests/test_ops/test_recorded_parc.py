"""The ParC operator against recorded outputs of the published implementation."""
import pytest
import recorded

from plugconv_mm.ops import parc_conv2d

RECORD = recorded.load('parc_op')


@pytest.mark.parametrize('backend', ['spatial', 'fft', 'gemm', 'auto'])
@pytest.mark.parametrize('case', RECORD['cases'],
                         ids=lambda c: f'{c["direction"]}-{"x".join(map(str, c["input"]))}-groups{c["groups"]}')
def test_parc_conv2d_gives_the_published_output(case, backend):
    channels, size = case['channels'], case['meta_kernel_size']
    side = (size, 1) if case['direction'] == 'H' else (1, size)
    tags = case['tags']
    output = parc_conv2d(
        recorded.draw(tags['x'], case['input']),
        recorded.draw(tags['weight'], (channels, channels // case['groups'], *side)),
        bias=recorded.draw(tags['bias'], (channels, )),
        position_embedding=recorded.draw(tags['position_embedding'], (1, channels, *side)),
        backend=backend)
    recorded.assert_matches(output, case['output'], tolerance=1e-4)

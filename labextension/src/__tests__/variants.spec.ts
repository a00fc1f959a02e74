import { hasVariants, variantOf } from '../variants';
import { gpuSpecs, specModels } from './fakes';

describe('variantOf', () => {
  it("takes a listed variant's word", () => {
    expect(variantOf('python3-gpu1', gpuSpecs())).toEqual({
      base: 'python3',
      request: '1',
      listed: true
    });
  });

  it.each([
    ['python3-gpu7', '7'],
    ['python3-gpu0.2', '0.2'],
    ['python3-gpu-h100-80gb', '1xh100-80gb']
  ])(
    'reads an unlisted one by the naming of the server: %s',
    (name, request) => {
      expect(variantOf(name, gpuSpecs())).toEqual({
        base: 'python3',
        request,
        listed: false
      });
    }
  );

  it('is none without its base, nor where a kernelspec of that name exists by itself', () => {
    expect(variantOf('julia-gpu1', gpuSpecs())).toBeNull();
    expect(variantOf('python3-gpu1', null)).toBeNull();
    const own = specModels({
      python3: { display_name: 'Python 3' },
      'python3-gpu1': { display_name: "Somebody's own" }
    });
    expect(variantOf('python3-gpu1', own)).toBeNull();
    expect(variantOf('python3', own)).toBeNull();
  });
});

describe('hasVariants', () => {
  it('is true only where the server offers some', () => {
    expect(hasVariants(gpuSpecs())).toBe(true);
    expect(hasVariants(null)).toBe(false);
    expect(
      hasVariants(specModels({ python3: { display_name: 'Python 3' } }))
    ).toBe(false);
  });
});

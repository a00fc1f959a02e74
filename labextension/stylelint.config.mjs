/** Colours come from the theme alone, so that every theme, high contrast included, fits. */
const colourFunctions = /^(rgb|rgba|hsl|hsla|hwb|lab|lch|oklab|oklch|color)$/;

export default {
  extends: ['stylelint-config-standard'],
  rules: {
    'color-named': 'never',
    'color-no-hex': true,
    'custom-property-pattern': '^(jp|gpu)-[a-z0-9-]+$',
    'function-disallowed-list': [colourFunctions],
    'selector-class-pattern': '^((jp|lm|gpu|u)-[A-Za-z0-9-]+|uplot)$'
  }
};

import "../symphony.js";

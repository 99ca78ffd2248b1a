CREATE TABLE public.mrm_alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.mrm_api_keys (
    tenant character varying(255) NOT NULL,
    key_hash bytea NOT NULL,
    name character varying(255) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone
);
CREATE TABLE public.mrm_bundles (
    tenant character varying(255) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    features character varying(64) NOT NULL,
    name character varying(255) NOT NULL,
    first_used_at timestamp with time zone NOT NULL
);
CREATE TABLE public.mrm_comparison_features (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    features character varying(64) NOT NULL,
    z bytea NOT NULL
);
CREATE TABLE public.mrm_comparisons (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    chosen bytea NOT NULL,
    rejected bytea NOT NULL,
    tie boolean NOT NULL,
    strength double precision NOT NULL,
    created_at timestamp with time zone NOT NULL,
    content bytea NOT NULL
);
CREATE TABLE public.mrm_item_features (
    tenant character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    features character varying(64) NOT NULL,
    base_rewards bytea NOT NULL
);
CREATE TABLE public.mrm_items (
    tenant character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    prompt text,
    response text,
    embedding bytea
);
CREATE TABLE public.mrm_outbox (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    kind character varying(32) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    leased_until timestamp with time zone
);
CREATE TABLE public.mrm_tombstones (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    forgotten_at timestamp with time zone NOT NULL
);
CREATE TABLE public.mrm_user_weights (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    weights bytea NOT NULL,
    covariance bytea,
    comparisons integer NOT NULL,
    feedback bigint NOT NULL,
    revision bigint NOT NULL
);
CREATE TABLE public.mrm_users (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    feedback bigint NOT NULL
);
INSERT INTO public.mrm_alembic_version VALUES ('0001');
INSERT INTO public.mrm_api_keys VALUES ('default', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'Schlüssel', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_bundles VALUES ('default', '81b2ee44e900aad5d409ba4d0c0187f737cce9527d5349b0eb73f77ba63f131b', 'f7aaed1d178171771e564300be4e7722c9c17f2b49a177c1c2b327f59510c5d6', 'tiny', '2026-11-23 19:35:28.241653+00');
INSERT INTO public.mrm_bundles VALUES ('globex', '81b2ee44e900aad5d409ba4d0c0187f737cce9527d5349b0eb73f77ba63f131b', 'f7aaed1d178171771e564300be4e7722c9c17f2b49a177c1c2b327f59510c5d6', 'tiny', '2026-11-23 19:35:28.492319+00');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c1', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x36f5c4bf7dfd1e40a733edbf');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c2', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x10626e3e9aa7bc3ff81c9ebf');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c3', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x51e41e4084a4563fc9af7b3f');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c4', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x97bc73c08c55e4bfb270ae3e');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c5', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x36f5c43f7dfd1ec0a733ed3f');
INSERT INTO public.mrm_comparison_features VALUES ('globex', 'c1', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\xa881aabfe881f4bd324dc63f');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c1', 'ada', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', false, 1, '2025-03-01 12:30:15.123456+00', '\xe00c295637b2ec3573ca6abf0317a546ed050c9e3b241e1b654273c02d9f19a4');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c2', 'ada', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', false, 1, '2025-03-01 12:30:15.123456+00', '\xc46d632e3ab0c99e0b5db281e89fc31ef6b17b82110008892c352841c0bded72');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c3', 'ada', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', true, 1, '2025-03-01 12:30:15.123456+00', '\x44a25e9f63cb3352bef98cfb112573715f9c484db4bcea45648b229fcb4ffc35');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c4', 'ada', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 2.5, '2025-03-01 12:30:15.123456+00', '\x8aee96fab6545c107fd1e388787ee462c2ef7581df2c95d1ef6b4b5dea92605c');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c5', 'bøb 🙂', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', false, 0.125, '2025-03-01 12:30:15.123456+00', '\x213e5c4cc815e1c25ed1bfa30a8140b407a66405d4d7d7dc12705a1bf67cb417');
INSERT INTO public.mrm_comparisons VALUES ('globex', 'c1', 'ada', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 1, '2025-03-01 12:30:15.123456+00', '\x2d9de886509ac06aca0af7c7ca13d2225d055d5179a6cdd3596e30ee6c352d66');
INSERT INTO public.mrm_item_features VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x7395a13f1ecf6bc050b3093f');
INSERT INTO public.mrm_item_features VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x3244e2bf9683f9bf167ddcbe');
INSERT INTO public.mrm_item_features VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x30dcc13e6f0c1dc048995f3f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x9c861c3f88e27abf5141b9be');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\xe008373f54318ebf3e710d3f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x7e9a0240507029bee47645bf');
INSERT INTO public.mrm_item_features VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x0e7f8dbe42a399bfff59a8bf');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\xa866353fa2d891be8023473f');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', 'a1ae955ab6e1ab8d097f4a3c176ef995686cac91d96d11d38a27d88435e5f508', '\x7e9a0240507029bee47645bf');
INSERT INTO public.mrm_items VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', 'How long?', 'a long one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', NULL, 'own', '\x0000803f0000000000000000000060c00000803e6f12833a');
INSERT INTO public.mrm_items VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', 'user: Wie heißt das?
assistant: 世界 🌍', 'naïve
	text ''quoted'' \ %s', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', 'user: Wie heißt das?
assistant: 世界 🌍', 'Grüße ✨', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', NULL, NULL, '\x0000003f0000a0bf00000040cdcccc3d333333bf0000c03f');
INSERT INTO public.mrm_items VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', 'How long?', 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', NULL, 'another tenant''s', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_outbox VALUES ('default', 'c1', 'ada', 'comparison', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_tombstones VALUES ('default', 'gone', '01a209e7-fd49-7ef7-846c-f627b9dd1e30', '2026-11-23 19:35:28.293807+00');
INSERT INTO public.mrm_tombstones VALUES ('globex', 'gone', '01a209e7-fe4f-7f52-af1e-22b60a7b298f', '2026-11-23 19:35:28.571836+00');
INSERT INTO public.mrm_user_weights VALUES ('default', 'bøb 🙂', '60a85189a43fd4c8d252ad8d29ace5aa47a50542e4dc62e009e1fb2deec48c5c', '\xb2344c5b7197c13fa6e9408be478b7bf785d6a49f85de03f', '\x9e0897ebc5fd0040407b6b697ac7dc3f79aab0e298e4e23f417b6b697ac7dc3f931be67d14ac0240e2352d5c4d35df3f79aab0e298e4e23fe2352d5c4d35df3f7cb549e6faf00a40', 1, 4350519016703728, 1);
INSERT INTO public.mrm_user_weights VALUES ('default', 'ada', '60a85189a43fd4c8d252ad8d29ace5aa47a50542e4dc62e009e1fb2deec48c5c', '\xa382c75d8f4bedbfea28070673aaea3f120f69e617d2b8bf', '\xd08da49bf776d63fb86dab297d02debfb6f0ea67af0dcdbfb76dab297d02debf0a4288a05468f33fee5447eb714ee53fb0f0ea67af0dcdbfec5447eb714ee53f3ec1b7532a06f93f', 4, 2981999229724501, 1);
INSERT INTO public.mrm_user_weights VALUES ('globex', 'ada', '60a85189a43fd4c8d252ad8d29ace5aa47a50542e4dc62e009e1fb2deec48c5c', '\x11939a1ee9adcebf3d784a9c414166bf26cf30b96638f03f', '\x873cff53556a0540e63814f80ce2d9bfeeb87da0a71c0040e63814f80ce2d9bfab41d5946fe8094069716996a549debfeeb87da0a71c00406a716996a549debf43e56d7ecab20a40', 1, 4231386548646185, 1);
INSERT INTO public.mrm_users VALUES ('default', 'ada', 2981999229724501);
INSERT INTO public.mrm_users VALUES ('default', 'bøb 🙂', 4350519016703728);
INSERT INTO public.mrm_users VALUES ('globex', 'ada', 4231386548646185);
ALTER TABLE ONLY public.mrm_alembic_version
    ADD CONSTRAINT mrm_alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.mrm_api_keys
    ADD CONSTRAINT pk_mrm_api_keys PRIMARY KEY (tenant, key_hash);
ALTER TABLE ONLY public.mrm_bundles
    ADD CONSTRAINT pk_mrm_bundles PRIMARY KEY (tenant, fingerprint);
ALTER TABLE ONLY public.mrm_comparison_features
    ADD CONSTRAINT pk_mrm_comparison_features PRIMARY KEY (tenant, event_id, features);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT pk_mrm_comparisons PRIMARY KEY (tenant, event_id);
ALTER TABLE ONLY public.mrm_item_features
    ADD CONSTRAINT pk_mrm_item_features PRIMARY KEY (tenant, item_key, features);
ALTER TABLE ONLY public.mrm_items
    ADD CONSTRAINT pk_mrm_items PRIMARY KEY (tenant, item_key);
ALTER TABLE ONLY public.mrm_outbox
    ADD CONSTRAINT pk_mrm_outbox PRIMARY KEY (tenant, event_id);
ALTER TABLE ONLY public.mrm_tombstones
    ADD CONSTRAINT pk_mrm_tombstones PRIMARY KEY (tenant, user_id);
ALTER TABLE ONLY public.mrm_user_weights
    ADD CONSTRAINT pk_mrm_user_weights PRIMARY KEY (tenant, user_id, fingerprint);
ALTER TABLE ONLY public.mrm_users
    ADD CONSTRAINT pk_mrm_users PRIMARY KEY (tenant, user_id);
CREATE INDEX ix_mrm_comparisons_chosen ON public.mrm_comparisons USING btree (tenant, chosen);
CREATE INDEX ix_mrm_comparisons_rejected ON public.mrm_comparisons USING btree (tenant, rejected);
CREATE INDEX ix_mrm_comparisons_user ON public.mrm_comparisons USING btree (tenant, user_id, event_id);
CREATE INDEX ix_mrm_outbox_user ON public.mrm_outbox USING btree (tenant, user_id);
ALTER TABLE ONLY public.mrm_comparison_features
    ADD CONSTRAINT fk_mrm_comparison_features_event_id FOREIGN KEY (tenant, event_id) REFERENCES public.mrm_comparisons(tenant, event_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_chosen FOREIGN KEY (tenant, chosen) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_rejected FOREIGN KEY (tenant, rejected) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_user FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id);
ALTER TABLE ONLY public.mrm_item_features
    ADD CONSTRAINT fk_mrm_item_features_item_key FOREIGN KEY (tenant, item_key) REFERENCES public.mrm_items(tenant, item_key) ON DELETE CASCADE;
ALTER TABLE ONLY public.mrm_user_weights
    ADD CONSTRAINT fk_mrm_user_weights_user_id FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id) ON DELETE CASCADE;

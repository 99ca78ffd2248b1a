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
CREATE TABLE public.mrm_ratings (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    prompt_key bytea NOT NULL,
    value double precision NOT NULL,
    strength double precision NOT NULL,
    created_at timestamp with time zone NOT NULL,
    content bytea NOT NULL
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
INSERT INTO public.mrm_alembic_version VALUES ('0002');
INSERT INTO public.mrm_api_keys VALUES ('default', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'Schlüssel', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_bundles VALUES ('default', '0d81bb3f1a11eced118568c62a4a721fa2e8eed392fa97568a2dab0688323c40', 'e409ac046bd64013ecb89114a5c48df8e28eb581fa11bc505cb338b432a90da7', 'tiny', '2026-11-23 19:35:47.836062+00');
INSERT INTO public.mrm_bundles VALUES ('globex', '0d81bb3f1a11eced118568c62a4a721fa2e8eed392fa97568a2dab0688323c40', 'e409ac046bd64013ecb89114a5c48df8e28eb581fa11bc505cb338b432a90da7', 'tiny', '2026-11-23 19:35:48.752377+00');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c1', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xae289bbf6e2a9b3f8d267440');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c2', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x5b00acbf3428a8bed0436a40');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c3', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x032f71bfd035873f78bf91be');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c4', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xe2962140949ac5bfdcab5040');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c5', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xae289b3f6e2a9bbf8d2674c0');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xc891173d5439593fc7946abf');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1#1', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x79e9c83e3acd113f272ff7bf');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1#2', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x40f7b53e34d88ebec4e481bf');
INSERT INTO public.mrm_comparison_features VALUES ('globex', 'c1', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x3214d63fc0a1163f2d19963f');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c1', 'ada', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', false, 1, '2025-03-01 12:30:15.123456+00', '\xe00c295637b2ec3573ca6abf0317a546ed050c9e3b241e1b654273c02d9f19a4');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c2', 'ada', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', false, 1, '2025-03-01 12:30:15.123456+00', '\xc46d632e3ab0c99e0b5db281e89fc31ef6b17b82110008892c352841c0bded72');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c3', 'ada', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', true, 1, '2025-03-01 12:30:15.123456+00', '\x44a25e9f63cb3352bef98cfb112573715f9c484db4bcea45648b229fcb4ffc35');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c4', 'ada', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 2.5, '2025-03-01 12:30:15.123456+00', '\x8aee96fab6545c107fd1e388787ee462c2ef7581df2c95d1ef6b4b5dea92605c');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c5', 'bøb 🙂', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', false, 0.125, '2025-03-01 12:30:15.123456+00', '\x213e5c4cc815e1c25ed1bfa30a8140b407a66405d4d7d7dc12705a1bf67cb417');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1', 'ada', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\xd49b83a698ca4fb21aafe159b48888462f98878ac56f6b1fb84cf4d0a45854ce');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1#1', 'ada', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\x80fd25c33a1a4379b494cf1236140ef1ec833b5155add11d69f443ad4827dd72');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1#2', 'ada', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\x31b49687ddeb6e32558654796ad6367ae04aa8f5fae8d32264e2e057ba85209e');
INSERT INTO public.mrm_comparisons VALUES ('globex', 'c1', 'ada', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 1, '2025-03-01 12:30:15.123456+00', '\x2d9de886509ac06aca0af7c7ca13d2225d055d5179a6cdd3596e30ee6c352d66');
INSERT INTO public.mrm_item_features VALUES ('default', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xb27ca93efe1ff6bf2056f23c');
INSERT INTO public.mrm_item_features VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x3fee6c3ff61d61c040cd69c0');
INSERT INTO public.mrm_item_features VALUES ('default', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xeb6ebc3e548389bf160263bf');
INSERT INTO public.mrm_item_features VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x7c1e9e3f6485d8bf8a94503f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xb8e1a83fe45fa8bfc26c27c0');
INSERT INTO public.mrm_item_features VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xdea8c7bcf169d2bf1cae853f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xea1b963e289f22bfceb4073f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x3cdd963d9e65bfbf189f6ac0');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x480fa5bf845617beba861cc0');
INSERT INTO public.mrm_item_features VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x3bc692bebf8813c0d094253e');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\xa613c43e3e98e13e47f4a2bf');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', '12b94fca7ce700393dba208aca449b3f87e1ce70b7e52b0609e4105d7ad7fb8e', '\x480fa5bf845617beba861cc0');
INSERT INTO public.mrm_items VALUES ('default', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', 'user: Wie heißt das?
assistant: 世界 🌍', 'second', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', 'How long?', 'a long one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', 'user: Wie heißt das?
assistant: 世界 🌍', 'first', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', NULL, 'own', '\x0000803f0000000000000000000060c00000803e6f12833a');
INSERT INTO public.mrm_items VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', 'user: Wie heißt das?
assistant: 世界 🌍', 'naïve
	text ''quoted'' \ %s', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', 'user: Wie heißt das?
assistant: 世界 🌍', 'Grüße ✨', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', NULL, NULL, '\x0000003f0000a0bf00000040cdcccc3d333333bf0000c03f');
INSERT INTO public.mrm_items VALUES ('default', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', 'How long?', 'rated alone', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', 'How long?', 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', NULL, 'another tenant''s', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_outbox VALUES ('default', 'c1', 'ada', 'comparison', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_ratings VALUES ('default', 'r1', 'ada', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '\xb9fb4a27d7521aa569151529e679589d9289513c5f2dc5b673239f51635a28f9', 4.5, 1, '2025-03-01 12:30:15.123456+00', '\x90b147371089efb2f568f15ee17f2dabfbdd2f7975288c3afd18ace0985f1b18');
INSERT INTO public.mrm_ratings VALUES ('default', 'r2', 'ada', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', '\xb9fb4a27d7521aa569151529e679589d9289513c5f2dc5b673239f51635a28f9', -2, 1, '2025-03-01 12:30:15.123456+00', '\x0427fe38d707ecae2162fcff08a20ea906dd0faffc8e218f444fc650056d999c');
INSERT INTO public.mrm_ratings VALUES ('default', 't1', 'bøb 🙂', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '\x74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b', 1, 3, '2025-03-01 12:30:15.123456+00', '\x4bb42ffffcbd03855f87ba7bb051574b7d80da4f21dd775a8cc2661ca1f0d6ed');
INSERT INTO public.mrm_tombstones VALUES ('default', 'gone', '01a209e8-4a2b-77e8-9439-ef60cdf02dff', '2026-11-23 19:35:47.948391+00');
INSERT INTO public.mrm_tombstones VALUES ('globex', 'gone', '01a209e8-4d79-79c8-bb9e-2bc4e0d52b1b', '2026-11-23 19:35:48.827503+00');
INSERT INTO public.mrm_user_weights VALUES ('default', 'bøb 🙂', '6259646958bbc5b21ccaaa74829a7ecfabf2c958ddb615bb7ec61ded5c933943', '\xd7b266fb46dae33f3f9e381ed589d0bf3ab2e2ad84bfd93f', '\x73644a149c82154058fa906de335e73f5055fe3a25b4b53f58fa906de335e73fefc382ce171c0b40c696a1862bdaa8bf4f55fe3a25b4b53fc996a1862bdaa8bfd358bfd9d45bc13f', 2, 275127694290752, 1);
INSERT INTO public.mrm_user_weights VALUES ('default', 'ada', '6259646958bbc5b21ccaaa74829a7ecfabf2c958ddb615bb7ec61ded5c933943', '\xc9f9c179931de53f937955f5771ae13f2bacbb0f621ee33f', '\xa0355353a035ea3f9a340e71b378e13f4a689308570bb43f98340e71b378e13f80f21265c408f33f2c1c19fd9dbabf3f4b689308570bb43f2f1c19fd9dbabf3f4f97ee62bf5db33f', 9, 3759218018857094, 1);
INSERT INTO public.mrm_user_weights VALUES ('globex', 'ada', '6259646958bbc5b21ccaaa74829a7ecfabf2c958ddb615bb7ec61ded5c933943', '\x3170d429393aef3f4d670688dab9d23f078d06fbd154dd3f', '\xc2959d6dded706402916f3dce56be8bf550cc1025fecacbf2a16f3dce56be8bf082dc793c4330d4012df4fb7744d87bf550cc1025fecacbf15df4fb7744d87bf01d098dd24fac13f', 1, 3048339280922312, 1);
INSERT INTO public.mrm_users VALUES ('default', 'ada', 3759218018857094);
INSERT INTO public.mrm_users VALUES ('default', 'bøb 🙂', 275127694290752);
INSERT INTO public.mrm_users VALUES ('globex', 'ada', 3048339280922312);
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
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT pk_mrm_ratings PRIMARY KEY (tenant, event_id);
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
CREATE INDEX ix_mrm_ratings_item ON public.mrm_ratings USING btree (tenant, item_key);
CREATE INDEX ix_mrm_ratings_user ON public.mrm_ratings USING btree (tenant, user_id);
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
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT fk_mrm_ratings_item FOREIGN KEY (tenant, item_key) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT fk_mrm_ratings_user FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id);
ALTER TABLE ONLY public.mrm_user_weights
    ADD CONSTRAINT fk_mrm_user_weights_user_id FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id) ON DELETE CASCADE;
